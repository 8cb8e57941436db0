"""Latency tables of runtimes that time only whole encoders: exported files, and torch in bfloat16."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from slimvox.encoder import SpeechEncoder
from slimvox.measure.benchmark.blocks import REST
from slimvox.measure.benchmark.result import place_of
from slimvox.measure.latency.beside_dense import times_beside_dense
from slimvox.measure.latency.in_torch import drawn_anatomy, largest_share, measure_in_torch
from slimvox.measure.latency.table import LatencyTable, check_clip, feature_values, fit_times
from slimvox.measure.runtime import encoder_milliseconds
from slimvox.structures.anatomy import EncoderAnatomy

FRONT_ENDS, LAYERS, WHOLE = 10, 10, 6
"""Number of encoders that are timed: without layers, with a single one, and whole ones besides the dense encoder."""
UNSEEN = 2
"""Number of whole ones that only check the table."""
ROUNDS = 7
SHARED = "shared"
"""Feature of an encoder that has layers, however many: WavLM computes its position bias once for all of them."""


def measure_in_runtime(
    dense: EncoderAnatomy,
    runtime: str,
    *,
    seconds: float,
    seed: int = 0,
    on_progress: Callable[[str], None] = lambda _: None,
) -> LatencyTable:
    """Time encoders of random sizes in a runtime on the CPU, and fit a table to the times.

    A runtime tells the time of a whole call only. Encoders without layers, with one layer, and whole ones differ in
    what they consist of, so that one fit over all of them finds the time of each part. Small encoders make up most of
    them, because an export takes as long as its encoder has layers.

    So few times do not determine all coefficients. A table is therefore measured in torch, too, where each block can be
    timed by itself, and the fit starts from that table's proportions (`fit_times`).

    Args:
        dense: anatomy of the dense encoder.
        runtime: backend of `slimvox benchmark`, such as openvino-int8.
        seconds: length of the clip, one at a time.
        seed: random seed of the sizes.
        on_progress: called with a short text after each encoder that is exported.

    Raises:
        SlimvoxError: if the clip is shorter than a frame or longer than the encoder allows, or the runtime is unknown,
            not installed, or lacks its precision on this processor.
    """
    check_clip(dense, seconds)
    anatomies = _drawn(dense, np.random.default_rng(seed))
    nanoseconds = _nanoseconds(dense, anatomies, runtime, seconds, on_progress)
    whole = [name for name in anatomies if name.startswith("whole")]
    unseen = whole[-UNSEEN:]
    prior = measure_in_torch(dense, seconds=seconds, seed=seed)
    coefficients = _fit(
        {name: anatomies[name] for name in anatomies if name not in unseen}, nanoseconds, prior
    )
    table = LatencyTable(
        seconds=seconds,
        device="cpu",
        threads=torch.get_num_threads(),
        rest=coefficients.pop(REST.kind)[SHARED],
        nanoseconds=coefficients,
        error=0.0,
        runtime=runtime,
        hardware=place_of("cpu"),
    )

    def timed(names: Sequence[str]) -> list[tuple[EncoderAnatomy, float]]:
        return [(dense, nanoseconds["dense"]), *((anatomies[name], nanoseconds[name]) for name in names)]

    table = table.scaled_to(timed(whole[:-UNSEEN]))
    # If the machine was busy while it was measured in torch, this table is no better.
    return replace(table, error=max(table.speed_up_error(timed(unseen)), prior.error))


def _drawn(dense: EncoderAnatomy, draw: np.random.Generator) -> dict[str, EncoderAnatomy]:
    """Random parts of a dense encoder by name: without layers, with one, and whole ones."""
    anatomies: dict[str, EncoderAnatomy] = {}
    for number in range(FRONT_ENDS):
        part = drawn_anatomy(dense, draw, largest_share(number))
        anatomies[f"front end {number}"] = replace(part, layers=())
    for number in range(LAYERS):
        part = drawn_anatomy(dense, draw, largest_share(number))
        anatomies[f"layer {number}"] = replace(part, layers=part.layers[:1])
    for number in range(WHOLE):
        anatomies[f"whole {number}"] = drawn_anatomy(dense, draw, largest_share(number))
    return anatomies


def _nanoseconds(
    dense: EncoderAnatomy,
    anatomies: Mapping[str, EncoderAnatomy],
    runtime: str,
    seconds: float,
    on_progress: Callable[[str], None],
) -> dict[str, float]:
    """Times of encoders in a runtime by name, and of the dense one as `dense`."""
    whole = [name for name in anatomies if name.startswith("whole")]
    # Two sessions, because more encoders with all layers at once would evict oneDNN's kernels.
    divided = (whole, [name for name in anatomies if name not in whole])
    total, before = len(anatomies) + len(divided), 0

    def sessions() -> Iterator[dict[str, SpeechEncoder]]:
        nonlocal before
        for names in divided:
            yield {name: SpeechEncoder(anatomies[name]).eval() for name in names}
            before += 1 + len(names)

    def clock(encoders: Mapping[str, SpeechEncoder]) -> dict[str, tuple[float, ...]]:
        return encoder_milliseconds(
            encoders,
            backend=runtime,
            threads=torch.get_num_threads(),
            seconds=seconds,
            rounds=ROUNDS,
            on_progress=lambda loaded: on_progress(
                f"{before + loaded} of {total} encoders are ready to be timed in {runtime}"
            ),
        )

    milliseconds = times_beside_dense(SpeechEncoder(dense).eval(), sessions(), clock)
    times = {"dense": milliseconds.dense, **milliseconds.others}
    return {name: 1e6 * each for name, each in times.items()}


def _fit(
    anatomies: Mapping[str, EncoderAnatomy], nanoseconds: Mapping[str, float], prior: LatencyTable
) -> dict[str, dict[str, float]]:
    """Nanoseconds of each feature of each kind of block, and of what the layers share, from times of whole encoders."""
    rows: list[dict[tuple[str, str], float]] = []
    for anatomy in anatomies.values():
        row: dict[tuple[str, str], float] = defaultdict(float)
        row[REST.kind, SHARED] = float(bool(anatomy.layers))
        for block, features in feature_values(anatomy, prior.seconds).items():
            for feature, value in features.items():
                row[block.kind, feature] += value
        rows.append(row)
    names = sorted({name for row in rows for name in row})
    shared = prior.rest
    if any(anatomy.has_position_table for anatomy in anatomies.values()):
        # Torch's table counts the shared position bias as a constant of the block `position`.
        shared += prior.nanoseconds.get("position", {}).get("constant", 0.0)
    known = {**prior.nanoseconds, REST.kind: {SHARED: shared}}
    coefficients = fit_times(
        [[row[name] for name in names] for row in rows],
        [nanoseconds[name] for name in anatomies],
        [known.get(kind, {}).get(feature, 0.0) for kind, feature in names],
    )
    table: dict[str, dict[str, float]] = defaultdict(dict)
    for (kind, feature), value in zip(names, coefficients, strict=True):
        table[kind][feature] = value
    return dict(table)
