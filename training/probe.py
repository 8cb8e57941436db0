"""Measures a frozen encoder, and log-mel beside it, with linear probes.

Phones: a softmax-weighted sum of all hidden states, one linear layer, CTC; phone error rate on speechocean762's test
split, whose speakers are not in its training split. Keywords: the same sum averaged over time, one linear layer;
accuracy on a seeded fifth of the wake-word set. Learning rates, and how far the blank is held back when phones are
read off, are chosen on a held-out tenth of the training part (for phones, of its speakers), never on what is reported.

    python training/probe.py --model src/slimvox/embedded/teacher --audio DATA --out probe.json
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from probe_features import Features, Whitening, encoder_states, log_mel
from probe_fitting import Clip, ProbeTask, fit
from slimvox.audio import read_audio


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """A clip that was not read yet."""

    path: Path
    label: str
    group: str
    """Group that must not be in both training and held-out data: the speaker, where the set names one."""
    test: bool


def phones_task(audio: Path, limit: int | None) -> list[Labelled]:
    """speechocean762 with its own splits; labels are ARPAbet phones without stress, parted by spaces."""
    found = []
    with (audio / "so762" / "manifest.tsv").open() as file:
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            phones = " ".join(phone.rstrip("012") for phone in row["phones"].split() if phone != "|")
            path = audio / "so762" / f"{row['id']}.opus"
            found.append(Labelled(path=path, label=phones, group=row["speaker"], test=row["split"] == "test"))
    return _thinned(found, limit)


def keywords_task(audio: Path, limit: int | None, seed: int = 0) -> list[Labelled]:
    """The wake-word set; a random fifth is for the test. It does not name its speakers."""
    with (audio / "wake" / "manifest.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    draws = torch.rand(len(rows), generator=torch.Generator().manual_seed(seed))
    found = [
        Labelled(
            path=audio / "wake" / f"{row['id']}.opus",
            label=row["keyword"],
            group=row["id"],
            test=bool(draw < 0.2),
        )
        for row, draw in zip(rows, draws, strict=True)
    ]
    return _thinned(found, limit)


def _thinned(clips: list[Labelled], limit: int | None) -> list[Labelled]:
    """At most `limit` clips of each part, evenly spread."""
    if limit is None:
        return clips
    kept = []
    for test in (False, True):
        part = [clip for clip in clips if clip.test == test]
        kept += part[:: max(1, -(-len(part) // limit))]
    return kept


def measure(task: ProbeTask, clips: list[Labelled], features: Features, seed: int = 0) -> dict[str, Any]:
    """Fit a probe per learning rate, take the best on held-out groups, and measure that one on the test part."""

    def read(labelled: Labelled) -> Clip:
        states = features(torch.from_numpy(read_audio(labelled.path)))
        return Clip(features=task.pooled(states), label=labelled.label)

    groups = sorted({clip.group for clip in clips if not clip.test})
    order = torch.randperm(len(groups), generator=torch.Generator().manual_seed(seed)).tolist()
    held_out_groups = {groups[i] for i in order[: max(1, len(groups) // 10)]}
    training = [read(clip) for clip in clips if not clip.test and clip.group not in held_out_groups]
    held_out = [read(clip) for clip in clips if not clip.test and clip.group in held_out_groups]
    whiten = Whitening([clip.features for clip in training])
    for clip in training + held_out:
        clip.features = whiten(clip.features)
    symbols = sorted({symbol for clip in training for symbol in task.symbols(clip.label)})
    probes = fit(task, training, symbols, seed=seed)
    errors = {
        (rate, penalty): error
        for rate, probe in probes.items()
        for penalty, error in task.errors(probe, held_out, symbols).items()
    }
    best, penalty = min(errors, key=lambda choice: errors[choice])
    del training, held_out
    test: list[tuple[str, str]] = []
    for labelled in clips:
        if labelled.test:
            clip = read(labelled)
            guess = task.read_off(probes[best](whiten(clip.features)), symbols, penalty)
            test.append((clip.label, guess))
    weights: Tensor = probes[best].layer_weights.softmax(0)
    name, value = task.score([label for label, _ in test], [guess for _, guess in test])
    return {
        f"test_{name}": value,
        "test_clips": len(test),
        "learning_rate": best,
        "blank_penalty": penalty,
        "held_out_errors": {str(choice): round(error, 4) for choice, error in errors.items()},
        "layer_weights": [round(weight, 3) for weight in weights.tolist()],
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="whatever slimvox.load takes; without it, log-mel alone")
    parser.add_argument("--audio", type=Path, required=True, help="folder with so762/ and wake/")
    parser.add_argument(
        "--out", type=Path, required=True, help="JSON file; figures of other runs in it are kept"
    )
    parser.add_argument("--tasks", nargs="+", choices=["phones", "keywords"], default=["phones", "keywords"])
    parser.add_argument("--no-log-mel", action="store_true", help="do not measure log-mel")
    parser.add_argument("--limit", type=int, help="clips per part, for a quick look")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    kinds: dict[str, Features] = {} if arguments.no_log_mel else {"log-mel": log_mel()}
    if arguments.model:
        kinds["encoder"] = encoder_states(arguments.model)
    report: dict[str, dict[str, Any]] = {}
    if arguments.out.is_file():
        report = json.loads(arguments.out.read_text())
    for name in arguments.tasks:
        task = ProbeTask(kind=name, epochs=arguments.epochs)
        clips = (phones_task if name == "phones" else keywords_task)(arguments.audio, arguments.limit)
        for kind, features in kinds.items():
            began = time.monotonic()
            figures = measure(task, clips, features)
            report.setdefault(kind, {})[name] = figures
            print(f"{kind} {name}: {figures} ({time.monotonic() - began:.0f} s)", flush=True)
            arguments.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
