"""A process that holds one contender and runs it on request."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from slimvox.measure.benchmark.contenders import Contender, load_contender
from slimvox.structures.anatomy import SAMPLE_RATE_HZ
from slimvox.util.errors import SlimvoxError


class Worker:
    """A worker process; its methods wait for the answer.

    Raises:
        SlimvoxError: if the contender cannot be loaded or a run fails there.
    """

    def __init__(self, contender: Contender, threads: int) -> None:
        self.contender = contender
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, contender, threads), daemon=True)
        before = os.environ.get("OMP_NUM_THREADS")
        os.environ["OMP_NUM_THREADS"] = str(threads)
        try:
            self._process.start()
        finally:
            if before is None:
                del os.environ["OMP_NUM_THREADS"]
            else:
                os.environ["OMP_NUM_THREADS"] = before
        other.close()
        self._answer()

    def milliseconds(self, batch: int, seconds: float) -> float:
        """Encode `batch` clips of `seconds` seconds once."""
        return float(self._ask(("run", batch, seconds)))

    def blocks(self, batch: int, seconds: float) -> dict[str, float] | None:
        """Milliseconds by block in one run; None if the backend has no blocks."""
        return self._ask(("blocks", batch, seconds))  # type: ignore[no-any-return]

    def peak_memory_bytes(self) -> int:
        """The most memory that the process has held so far, libraries and weights included."""
        return int(self._ask(("memory",)))

    def close(self) -> None:
        """End the process."""
        if self._process.is_alive():
            self._process.terminate()
        self._process.join()
        self._connection.close()

    def _ask(self, request: tuple[Any, ...]) -> Any:
        self._connection.send(request)
        return self._answer()

    def _answer(self) -> Any:
        try:
            error, answer = self._connection.recv()
        except EOFError:
            self._process.join()
            raise SlimvoxError(
                f"{self.contender.label}: its process ended (exit status {self._process.exitcode});"
                " there may be too little memory for this length and batch"
            ) from None
        if error:
            raise SlimvoxError(f"{self.contender.label}: {error}")
        return answer


def _serve(connection: Connection, contender: Contender, threads: int) -> None:
    try:
        loaded = load_contender(contender, threads)
    except Exception as error:
        connection.send((_sentence(error), None))
        return
    connection.send((None, None))
    while True:
        try:
            request = connection.recv()
        except (EOFError, KeyboardInterrupt):
            return
        try:
            connection.send((None, _handle(request, loaded)))
        except KeyboardInterrupt:
            return
        except Exception as error:
            connection.send((_sentence(error), None))


def _handle(request: tuple[Any, ...], loaded: Any) -> Any:
    if request[0] == "memory":
        return _peak_memory_bytes()
    _, batch, seconds = request
    samples = round(seconds * SAMPLE_RATE_HZ)
    waveforms = np.random.default_rng(0).normal(0, 0.1, (batch, samples)).astype(np.float32)
    if request[0] == "run":
        began = time.perf_counter()
        loaded.run(waveforms)
        return (time.perf_counter() - began) * 1000
    if loaded.module is None:
        return None
    from slimvox.measure.benchmark.blocks import BlockTimer

    with BlockTimer(loaded.module) as timer:
        began = time.perf_counter()
        loaded.run(waveforms)
        whole = (time.perf_counter() - began) * 1000
    blocks = dict(timer.milliseconds)
    blocks["rest"] = whole - sum(blocks.values())
    return blocks


def _peak_memory_bytes() -> int:
    status = Path("/proc/self/status")
    if status.is_file():
        # Not ru_maxrss, in which Linux counts what the parent held when it started this process.
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _sentence(error: Exception) -> str:
    return str(error) if isinstance(error, SlimvoxError) else f"{type(error).__name__}: {error}"
