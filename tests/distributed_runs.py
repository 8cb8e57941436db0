"""Two processes of one run on the CPU, started by torchrun as a user would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

LEAVE = """
if torch.distributed.is_initialized():
    torch.distributed.destroy_process_group()
"""
"""End of every script: gloo's threads are joined, which otherwise abort the interpreter on its way out now and then."""


def torchrun(code: str, folder: Path, *, processes: int = 2) -> subprocess.Popen[str]:
    """Start Python code in processes of their own, which are joined by gloo; `tests/` is importable in them."""
    script = folder / "script.py"
    script.write_text(f"import torch\ntorch.set_num_threads(1)\n{code}\n{LEAVE}")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }
    return subprocess.Popen(
        [*launcher, "--nproc-per-node", str(processes), str(script)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for the processes of `torchrun`, and return what they printed."""
    try:
        said, _ = process.communicate(timeout=300)
    finally:
        process.kill()
    return said
