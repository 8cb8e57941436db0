"""Two processes, launched by torchrun, on the CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import slimvox


@pytest.mark.slow
def test_two_processes_prune_together(teacher: Path, speech: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"),
        *("--module", "slimvox", "prune"),
        *(
            str(teacher),
            str(speech),
            "--out",
            str(out),
            "--recipe",
            "quick",
            "--max-steps",
            "6",
            "--device",
            "cpu",
        ),
        *("--set", "data.min_seconds=0.5", "data.max_seconds=1.0", "data.seconds_per_batch=2.0"),
    ]
    finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert finished.returncode == 0, finished.stderr
    records = [json.loads(line) for line in (out / "run" / "log.jsonl").read_text().splitlines()]
    assert len(records) == 6
    assert json.loads((out / "run" / "settings.json").read_text())["fingerprint"]["processes"] == 2
    assert slimvox.load(out).parameter_count <= 0.28 * slimvox.load(teacher).parameter_count
