"""Score files and benchmark files as the commands write them, with numbers made up by the test."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from slimvox.evaluation.results import YARDSTICK, TaskResult
from slimvox.evaluation.tasks import tasks


def write_scores(
    folder: Path, model: str, metrics: Mapping[str, float], *, parameters: int, spread: float | None = None
) -> Path:
    """TASK.json for each task of which a metric is given, as if `model` had been evaluated on mini-SUPERB."""
    folder.mkdir(parents=True, exist_ok=True)
    for each in tasks():
        task = each.name
        own = {name: value for name, value in metrics.items() if name == task or name.startswith(f"{task}_")}
        if not own:
            continue
        result = TaskResult(
            task=task,
            configuration={
                "model": model,
                "model_fingerprint": model,
                "parameters": parameters,
                "suite": "mini",
                "yardstick": YARDSTICK,
                "data": [path.stem for path in each.mini_tables()],
            },
            scores={name: _score(name, value, spread) for name, value in own.items()},
            chance_is="a guess",
            counts={"test": 10},
            skipped={},
            chosen=[{"learning_rate": 0.1}],
            details=[],
            seconds={"encode": 1.0, "fit": 1.0, "total": 2.0},
        )
        content = dataclasses.asdict(result)
        del content["reused"]
        (folder / f"{task}.json").write_text(json.dumps(content))
    return folder


def write_benchmark(path: Path, speedups: Mapping[str, float], sizes: Mapping[str, int]) -> Path:
    """Times of models (by their path) against a dense one of 100 ms, single clips of 10 s."""
    times = {
        "dense, transformers": 100.0,
        **{f"{Path(m).name}, torch": 100.0 / s for m, s in speedups.items()},
    }
    models = ["teacher", *speedups]
    content = {
        "machine": {"processor": "Abacus 3000", "threads": 2},
        "reference": "dense, transformers",
        "block_seconds": 10.0,
        "contenders": [
            {
                "label": label,
                "model": model,
                "backend": "torch",
                "parameters": sizes.get(model, 1),
                "macs_10s": 1,
            }
            for label, model in zip(times, models, strict=True)
        ],
        "measurements": [
            {
                "label": label,
                "batch": 1,
                "seconds": 10.0,
                "median_ms": milliseconds,
                "spread": 0.02,
                "speedup": 100.0 / milliseconds,
            }
            for label, milliseconds in times.items()
        ],
    }
    path.write_text(json.dumps(content))
    return path


def _score(name: str, value: float, spread: float | None) -> dict[str, Any]:
    return {
        "title": "accuracy" if name in ("ks", "sid", "er", "ic") else "error",
        "percent": True,
        "higher_is_better": name in ("ks", "sid", "er", "ic"),
        "mean": value,
        "spread": spread,
        "seeds": [value],
        "folds": [[value]],
        "chance": 5.0,
    }
