"""Short runs on a tiny seeded teacher; their losses, sizes and distances are stored in `pruning/golden_runs.json`.

`make golden` (or `python tests/golden_runs.py`) writes the file again and prints what changed. Do that only where the
change of the values is intended, and say in the commit why they changed.

On another CPU, which adds floats in another order, the values agree up to the tolerances. That is why `paper` gates the
front end too: state 0 of a student with the teacher's own front end differs from the teacher's by rounding only, and
the gradient of an absolute difference is its sign.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import slimvox
from slimvox.comparison.distance import Distance
from tiny_runs import make_speech, make_teacher

FILE = Path(__file__).parent / "pruning" / "golden_runs.json"
DIGITS = 6
"""Significant digits that are stored."""
TOLERANCE = 1e-4
"""Absolute or relative, whichever is larger."""
SENSITIVE = {"gradient_norm": 1e-2, "lambda1": 1e-2}
"""Tolerances of values that rounding changes by more: gradients (signs of differences near 0) and the multiplier at
which the search of a projection ends."""
SHORT = {
    "prune.steps": 8,
    "finish.steps": 6,
    "prune.warmup_steps": 2,
    "finish.warmup_steps": 2,
    "gates.ramp_steps": 5,
    "data.seconds_per_batch": 2.0,
    "data.min_seconds": 0.5,
    "data.max_seconds": 0.8,
}
RUNS: dict[str, dict[str, Any]] = {
    "quick": {"recipe": "quick", "overrides": {"gates.learning_rate": 0.5}},
    "paper": {
        "recipe": "paper",
        "overrides": {
            "gates.learning_rate": 0.5,
            "gates.multiplier_learning_rate": 1.0,
            "gates.initial_drop": 0.2,
            "structures.conv": True,
            "target.keep": 0.45,
        },
    },
    "sizes": {
        "recipe": "quick",
        "overrides": {"gates.learning_rate": 0.5, "target.kind": "macs"},
        "sizes": "60%,35%",
    },
    "every option of the loss": {
        "recipe": "quick",
        "overrides": {
            "gates.learning_rate": 0.5,
            "gates.sparsity_control": "lagrangian",
            "gates.straight_through": False,
            "gates.final_values": "one",
            "distillation.layers": 3,
            "distillation.weights.relation": 0.5,
            "distillation.maps": True,
            "distillation.targets": "groups",
            "distillation.masked_share": 0.2,
            "finish.weight_decay": 0.1,
        },
    },
    "random gates": {"recipe": "quick", "control": "random", "overrides": {"prune.steps": 2}},
}


def measure(name: str, folder: Path) -> dict[str, Any]:
    """Make one of the runs; returns the values to be stored."""
    fields = dict(RUNS[name])
    overrides = {**SHORT, **fields.pop("overrides")}
    teacher, speech = make_teacher(folder / "teacher"), make_speech(folder / "speech")
    result = slimvox.prune(
        teacher, speech, folder / "out", overrides=overrides, device="cpu", precision="float32", **fields
    )
    encoders = result.sizes or (result,)
    values: dict[str, Any] = {
        "log": _columns(folder / "out" / "run" / "log.jsonl"),
        "encoders": [_encoder(each) for each in encoders],
    }
    if result.sizes:
        values["logs of stage 2"] = [
            _columns(each.directory / "run" / "log.jsonl", stage="finish") for each in encoders
        ]
    return values


def differences(expected: Any, got: Any, tolerance: float = TOLERANCE, path: str = "") -> Iterator[str]:
    """Places at which two trees of values differ: numbers by more than the tolerance, anything else at all."""
    if isinstance(expected, dict) and isinstance(got, dict) and expected.keys() == got.keys():
        for name, value in expected.items():
            yield from differences(value, got[name], SENSITIVE.get(name, tolerance), f"{path}/{name}")
    elif isinstance(expected, list) and isinstance(got, list) and len(expected) == len(got):
        for number, (first, second) in enumerate(zip(expected, got, strict=True)):
            yield from differences(first, second, tolerance, f"{path}[{number}]")
    elif isinstance(expected, float) and isinstance(got, float | int):
        if not math.isclose(expected, got, rel_tol=tolerance, abs_tol=tolerance):
            yield f"{path}: {expected} before, {got} now"
    elif expected != got:
        yield f"{path}: {expected} before, {got} now"


def _columns(log: Path, stage: str | None = None) -> dict[str, list[float | None]]:
    """Logged values by name, one (or None) per step."""
    records = [json.loads(line) for line in log.read_text().splitlines()]
    records = [record for record in records if stage in (None, record["stage"])]
    names = {name for record in records for name in record} - {"audio_seconds_per_second", "gates", "step"}
    return {name: [_rounded(record.get(name)) for record in records] for name in sorted(names)}


def _encoder(result: slimvox.PruneResult) -> dict[str, Any]:
    anatomy = result.encoder.anatomy
    return {
        "parameters": result.parameters,
        "macs": result.macs_10s,
        "channels": [convolution.channels for convolution in anatomy.convolutions],
        "heads": [len(layer.heads) for layer in anatomy.layers],
        "qk": [layer.qk for layer in anatomy.layers],
        "vo": [layer.vo for layer in anatomy.layers],
        "intermediate": [layer.intermediate for layer in anatomy.layers],
        "distance after the cut": _distance(result.distance_after_prune),
        "distance at the end": _distance(result.distance_after_finish),
    }


def _distance(distance: Distance | None) -> list[float]:
    assert distance is not None
    return [_rounded(distance.relative_error), _rounded(distance.cosine)]


def _rounded(value: Any) -> Any:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def _text(values: dict[str, Any]) -> str:
    """JSON with a list of numbers on one line, so that a change shows as few lines."""

    def lines(value: Any, indent: str) -> str:
        if isinstance(value, dict):
            inner = ",\n".join(
                f"{indent}  {json.dumps(name)}: {lines(each, indent + '  ')}" for name, each in value.items()
            )
            return f"{{\n{inner}\n{indent}}}"
        if isinstance(value, list) and any(isinstance(each, dict) for each in value):
            inner = ",\n".join(f"{indent}  {lines(each, indent + '  ')}" for each in value)
            return f"[\n{inner}\n{indent}]"
        return json.dumps(value)

    return lines(values, "") + "\n"


def main() -> None:
    """Make all runs, print where they differ from the stored values, and store them."""
    torch.set_num_threads(1)
    made = {}
    for name in RUNS:
        with tempfile.TemporaryDirectory() as folder:
            made[name] = measure(name, Path(folder))
    before = json.loads(FILE.read_text()) if FILE.is_file() else {}
    for name in before.keys() & made.keys():
        changed = list(differences(before[name], made[name]))
        for line in changed:
            print(f"{name}: {line.lstrip('/')}")
        if not changed:
            made[name] = before[name]  # last digits that rounding moved are no change
    FILE.write_text(_text(made))
    print(f"wrote {FILE}")


if __name__ == "__main__":
    main()
