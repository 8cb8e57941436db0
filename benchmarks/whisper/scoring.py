"""Word errors of an encoder with Whisper's decoder, by slimvox's own measure."""

from __future__ import annotations

import csv
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from windows import clips_of

from slimvox.encoder import SpeechEncoder
from slimvox.evaluation.metrics.error_rates import word_edits
from slimvox.evaluation.results import TaskResult, read_result
from slimvox.evaluation.suite import EvaluationPlan, evaluate
from slimvox.evaluation.upstreams import EncoderUpstream

Counts = np.ndarray[Any, np.dtype[np.float64]]
RESAMPLINGS = 4000
SETS = ("so762", "libri")
"""Sets whose test clips are transcribed: the first against its texts, the second against the dense model's words."""


def write_manifests(data: Path, out: Path, *, clips: Mapping[str, int], longest_seconds: float) -> None:
    """Write SET.tsv for each set: that many fixed clips of its test split."""
    for name in SETS:
        found = [each for each in clips_of(data, name, "test") if each.seconds <= longest_seconds]
        random.Random(0).shuffle(found)
        rows = [(f"{name}/{each.path.name}", each.text) for each in found[: clips[name]]]
        _write(out / f"{name}.tsv", rows)


def score(
    encoder: SpeechEncoder, name: str, folder: Path, *, data: Path, tables: Path, window_seconds: float
) -> dict[str, TaskResult]:
    """Result of each set; kept in `folder`, and read from there if they exist.

    Args:
        encoder: encoder whose `origin` is a Whisper with its decoder.
        name: name for the results.
        folder: folder for the results.
        data: folder of the sets.
        tables: folder of the manifests, in which the dense model, the first that is scored, leaves its words.
        window_seconds: length to which clips are padded.
    """
    results = {}
    for each in SETS:
        table, overrides = tables / f"{each}.tsv", [f"transcription.window_seconds={window_seconds:g}"]
        dense = each == "libri" and name == "dense"
        if each == "libri" and not dense:
            table = tables / "libri-dense.tsv"
        overrides += ["transcription.most_tokens=100", "transcription.batch=16"]
        overrides += [f"transcription.reference={encoder.origin}"] if dense else []
        plan = EvaluationPlan(
            model=name,
            data=data,
            manifests={"transcription": (table,)},
            overrides=tuple(overrides),
            out=folder / each,
            cache="none",
            precision="bf16",
            workers=1,
        )
        upstream = EncoderUpstream(encoder, name, precision="bf16")
        (results[each],) = evaluate(plan, upstream=upstream)
        if dense:
            words = [(clip["id"], clip["words"]) for clip in results[each].details[0]["clips"]]
            _write(tables / "libri-dense.tsv", words)
    return results


def _write(path: Path, rows: list[tuple[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(("path", "split", "text"))
        writer.writerows((name, "test", text) for name, text in rows)


def summary(results: Mapping[str, TaskResult]) -> dict[str, Any]:
    """Word error rates in percent, and the number of words that they count.

    `capped` counts for each clip at most as many errors as it has words. A decoder that repeats itself on a few clips
    makes up to 100 errors on each, which decide the plain rate.
    """
    return {
        name: {
            **{kind: round(float(_rate(counts)), 3) for kind, counts in _counts(result).items()},
            "clips": result.counts["test"],
            "words": result.details[0]["words"],
        }
        for name, result in results.items()
    }


def _counts(result: TaskResult) -> dict[str, Counts]:
    """Word errors and words of each clip, (clips, 2), plain and capped."""
    clips = result.details[0]["clips"]
    plain = np.array(
        word_edits([clip["reference"] for clip in clips], [clip["words"] for clip in clips]), float
    )
    return {"wer": plain, "capped": np.minimum(plain, plain[:, 1:])}


def differences(scores: Path, name: str, other: str) -> dict[str, dict[str, list[float]]]:
    """Word error rates of one encoder minus those of another, in points, by set, plain and capped (`summary`).

    Each is the difference and the ends of its 95 % interval, from 4,000 resamplings of the clips.

    Args:
        scores: folder in which `score` left the results of both.
        name: name of the one.
        other: name of the other.
    """
    draw, found = np.random.default_rng(0), {}
    ours, theirs = read_results(scores / name), read_results(scores / other)
    for each in SETS:
        one, two = _counts(ours[each]), _counts(theirs[each])
        rows = draw.integers(len(one["wer"]), size=(RESAMPLINGS, len(one["wer"])))
        found[each] = {}
        for kind in one:
            drawn = _rate(one[kind][rows]) - _rate(two[kind][rows])
            values = (_rate(one[kind]) - _rate(two[kind]), *np.percentile(drawn, (2.5, 97.5)))
            found[each][kind] = [round(float(value), 2) for value in values]
    return found


def _rate(counts: Counts) -> Any:
    sums = counts.sum(-2)
    return 100 * sums[..., 0] / sums[..., 1]


def read_results(folder: Path) -> dict[str, TaskResult]:
    """Results that `score` left in a folder, by set."""
    found = {name: read_result(folder / name / "transcription.json") for name in SETS}
    return {name: result for name, result in found.items() if result is not None}
