"""Runs that are stopped at a certain point."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from slimvox.pruning import stage
from slimvox.pruning.interrupts import RunInterrupted


@contextmanager
def interrupted_after(
    title: str, step: int, *, raises: type[BaseException] = RunInterrupted
) -> Iterator[pytest.ExceptionInfo[BaseException]]:
    """A block whose run receives Ctrl-C after a step of the stage of that title and has to end with the exception.

    `title` is `prune`, `finish`, or `finish` and the name of a size.
    """
    train_step = stage.Stage._train_step

    def interrupting(self: stage.Stage, batches: Any) -> Any:
        values = train_step(self, batches)
        if (self.title, self.step + 1) == (title, step):
            signal.raise_signal(signal.SIGINT)
        return values

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage.Stage, "_train_step", interrupting)
        with pytest.raises(raises) as raised:
            yield raised


def kill_when(code: str, file: Path, lines: int) -> None:
    """Run Python code in a process of its own, and SIGKILL it once a file has so many lines.

    One thread, as in the tests' own process: another number adds floats in another order.
    """
    code = (
        f"import sys, torch, slimvox.encoder.linear\ntorch.set_num_threads({torch.get_num_threads()})\n"
        # The kernels of `conftest.py`.
        f"sys.modules['slimvox.encoder.linear']._mkl_is_faster = lambda: False\n{code}"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment)
    deadline = time.monotonic() + 120
    while not (file.is_file() and file.read_bytes().count(b"\n") >= lines):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
