"""Word errors of an encoder with Whisper's decoder, by slimvox's own measure."""

from __future__ import annotations

import csv
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from windows import clips_of

from slimvox.encoder import SpeechEncoder
from slimvox.evaluation.metrics.error_rates import word_edits
from slimvox.evaluation.results import TaskResult, read_result
from slimvox.evaluation.suite import EvaluationPlan, evaluate
from slimvox.evaluation.upstreams import EncoderUpstream

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
            "wer": round(result.scores["transcription"]["mean"], 3),
            "capped": round(_capped(result.details[0]["clips"]), 3),
            "clips": result.counts["test"],
            "words": result.details[0]["words"],
        }
        for name, result in results.items()
    }


def _capped(clips: Sequence[Mapping[str, str]]) -> float:
    counts = _counts(clips)
    return 100 * sum(min(edits, words) for edits, words in counts) / sum(words for _, words in counts)


def _counts(clips: Sequence[Mapping[str, str]]) -> list[tuple[int, int]]:
    """Word errors and words of each clip."""
    return word_edits([clip["reference"] for clip in clips], [clip["words"] for clip in clips])


def differences(scores: Path, name: str, other: str) -> dict[str, dict[str, list[float]]]:
    """Word error rates of one encoder minus those of another, in points, by set, plain and capped (`summary`).

    Each is the difference and the ends of its 95 % interval, from 4,000 resamplings of the clips.

    Args:
        scores: folder in which `score` left the results of both.
        name: name of the one.
        other: name of the other.
    """
    draw, found = np.random.default_rng(0), {}
    for each in SETS:
        results = [read_result(scores / encoder / each / "transcription.json") for encoder in (name, other)]
        plain = [np.array(_counts(result.details[0]["clips"]), float) for result in results if result]
        capped = [np.minimum(counts, counts[:, 1:]) for counts in plain]
        rows = draw.integers(len(plain[0]), size=(RESAMPLINGS, len(plain[0])))
        found[each] = {
            kind: [
                round(float(value), 2)
                for value in (_rate(one) - _rate(two), *np.percentile(drawn, (2.5, 97.5)))
            ]
            for kind, (one, two) in (("wer", plain), ("capped", capped))
            for drawn in [_rate(one[rows]) - _rate(two[rows])]
        }
    return found


def _rate(counts: np.ndarray[Any, np.dtype[np.float64]]) -> Any:
    sums = counts.sum(-2)
    return 100 * sums[..., 0] / sums[..., 1]


def read_summary(folder: Path) -> dict[str, Any]:
    """`summary` of results that `score` left in a folder."""
    found = {name: read_result(folder / name / "transcription.json") for name in SETS}
    return summary({name: result for name, result in found.items() if result is not None})
