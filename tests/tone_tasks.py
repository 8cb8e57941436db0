"""A tiny set of tones for each of the ten tasks; the id of a recording starts with its split."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evaluation_tables import write_table
from slimvox.evaluation.protocols import HeadProtocol
from slimvox.evaluation.tasks import task

WriteTones = Callable[..., str]
Row = dict[str, str]

COUNTS = {"train": 6, "dev": 3, "test": 3}
SMALL: dict[str, dict[str, Any]] = {
    **{name: {"projection": 8} for name in ("ks", "sid", "ic", "er", "pr")},
    **{name: {"projection": 8, "hidden": 8, "time_mask_frames": 4} for name in ("asr", "sf")},
    "asv": {"projection": 8, "hidden": 8, "pooled": 8, "embedding": 4},
    "sd": {"hidden": 8},
}


def tone_protocol(name: str, **changes: Any) -> HeadProtocol:
    """The task's own protocol with a small head and few steps."""
    mini: HeadProtocol = task(name).protocols["mini"]
    if name == "qbe":
        return mini
    fields = {"steps": 4, "evaluations": 2, "batch": 4, "learning_rates": (1e-2, 1e-3), **SMALL[name]}
    return dataclasses.replace(mini, **{**fields, **changes})


def tone_set(name: str, folder: Path, write: WriteTones) -> Any:
    """Examples of all splits; `write` makes recordings in `folder`/data."""
    make = {"asv": _voices, "sd": _conversations, "qbe": _searches}.get(name, _utterances)
    table = write_table(folder / f"{name}.tsv", make(name, write))
    return task(name).read_manifest(table, folder / "data")


def _utterances(name: str, write: WriteTones) -> list[Row]:
    rows = []
    for split, count in COUNTS.items():
        for number in range(count):
            tone = "abc"[number % 3]
            path = write(f"{split}-{name}{number}", tone + "b" + tone, seed=len(rows))
            truths = {
                "ic": {"label_tone": tone, "label_place": str(number % 2)},
                "pr": {"text": f"{tone} b {tone}"},
                "asr": {"text": f"{tone}b {tone}"},
                "sf": {"text": f"b [{tone.upper()}: {tone}]"},
            }
            rows.append({"path": path, "split": split, **truths.get(name, {"label": tone})})
    return rows


def _voices(name: str, write: WriteTones) -> list[Row]:
    rows = []
    for split, voices in (("train", (2500, 4000, 6000)), ("dev", (3000, 5000)), ("test", (2800, 5500))):
        for voice, word in itertools.product(voices, "ab"):
            path = write(f"{split}-{voice}{word}", word * 3, voice=float(voice), seed=len(rows))
            rows.append({"path": path, "split": split, "label": str(voice)})
    return rows


def _conversations(name: str, write: WriteTones) -> list[Row]:
    rows = []
    for split, count in COUNTS.items():
        for number in range(count):
            one = write(f"{split}-{number}x", "aaa", seed=number)
            two = write(f"{split}-{number}y", "ccc", seed=100 + number)
            rows.append(
                {
                    "id": f"{split}-{number}",
                    "path": f"{one} + {two}@0.3",
                    "split": split,
                    "turns": "one 0-0.6; two 0.3-0.9",
                }
            )
    return rows


def _searches(name: str, write: WriteTones) -> list[Row]:
    rows: list[Row] = []
    for split in ("dev", "test"):
        for term in "abc":
            path = write(f"{split}-q{term}", term, seed=len(rows))
            rows.append({"id": path, "path": path, "split": split, "role": "query", "label": term})
        for first, second in itertools.permutations("abc", 2):
            path = write(f"{split}-{first}{second}", first + second, seed=len(rows))
            label = f"{first}|{second}"
            rows.append({"id": path, "path": path, "split": split, "role": "document", "label": label})
    return rows
