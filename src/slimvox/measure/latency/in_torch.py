"""Latency as a cost: encoders of many sizes are measured, to fit the time of each size on this machine."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median

import numpy as np
import torch

from slimvox.costs import BLOCK_KINDS
from slimvox.encoder import SpeechEncoder
from slimvox.measure.benchmark.blocks import REST, BlockTimer, block_modules
from slimvox.measure.benchmark.result import place_of
from slimvox.measure.latency.beside_dense import BESIDE_DENSE, groups_beside_dense, times_beside_dense
from slimvox.measure.latency.table import LatencyTable, check_clip, feature_values, fit_times
from slimvox.structures import Block, structure
from slimvox.structures.anatomy import SAMPLE_RATE_HZ, EncoderAnatomy
from slimvox.structures.kept_indices import KeptIndices
from slimvox.structures.units import units
from slimvox.util.timing import seconds_in_turns, wait_for

PROBES, UNSEEN = 13, 4
"""Number of whole encoders that are measured, and of those that only check the table."""
FRONT_ENDS = 16
"""Number of front ends measured alone, since an encoder has many layers, but only one front end."""
SMALL = 0.3
"""Maximum share of the units that small encoders keep of each size."""
FEWEST_ROUNDS, MOST_ROUNDS = 3, 15
PATIENCE_SECONDS = 40.0
"""Approximate maximum time for measuring, if it exceeds that of the minimum number of rounds."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """An encoder and the time of each of its parts."""

    anatomy: EncoderAnatomy
    blocks: dict[Block, float]
    """Nanoseconds by block, and outside all blocks (`REST`)."""

    @property
    def total(self) -> float:
        """Nanoseconds of the whole encoder."""
        return sum(self.blocks.values())


def measure_in_torch(
    dense: EncoderAnatomy, *, seconds: float = 10.0, device: torch.device | str = "cpu", seed: int = 0
) -> LatencyTable:
    """Time encoders of random sizes, in float32 and without gradients, and fit a table to the times.

    Each probe has random weights, and in every convolution and layer its own random sizes between 0 and those of
    `dense`, with heads of unequal width as after pruning. The dense encoder itself is not fitted, because its widths,
    multiples of 16, are computed faster for their size than those that pruning leaves.

    Args:
        dense: anatomy of the dense encoder.
        seconds: length of the clip, one at a time.
        device: device to run on.
        seed: random seed of the sizes.

    Raises:
        SlimvoxError: if the clip is shorter than a frame or longer than the encoder allows.
    """
    device = torch.device(device)
    check_clip(dense, seconds)
    draw = np.random.default_rng(seed)
    waveform = 0.1 * torch.randn(1, round(seconds * SAMPLE_RATE_HZ), device=device)
    rounds = _rounds_for(dense, waveform)
    anatomies = [drawn_anatomy(dense, draw, largest_share(number)) for number in range(PROBES)]
    for number in range(FRONT_ENDS):
        anatomies.append(replace(drawn_anatomy(dense, draw, largest_share(number)), layers=()))
    probes, dense_nanoseconds = _measured_probes(dense, anatomies, waveform, rounds)
    seen, unseen, fronts = probes[: PROBES - UNSEEN], probes[PROBES - UNSEEN : PROBES], probes[PROBES:]
    table = LatencyTable(
        seconds=seconds,
        device=device.type,
        threads=torch.get_num_threads(),
        nanoseconds={kind: _fit(kind, [*seen, *fronts], seconds) for kind in BLOCK_KINDS},
        rest=median(probe.blocks[REST] for probe in seen),
        error=0.0,
        dense=dense_nanoseconds,
        hardware=place_of(device.type),
    )
    times = [(dense, dense_nanoseconds), *((probe.anatomy, probe.total) for probe in unseen)]
    return replace(table, error=table.speed_up_error(times))


def _measured_probes(
    dense: EncoderAnatomy, anatomies: Sequence[EncoderAnatomy], waveform: torch.Tensor, rounds: int
) -> tuple[list[Probe], float]:
    """Probes, and the nanoseconds of the dense encoder.

    A probe's total, measured beside the dense encoder, is divided among its blocks in proportion to their shortest
    times.
    """
    whole = SpeechEncoder(dense).to(waveform.device).eval()
    shares: list[dict[Block, float]] = []

    def sessions() -> Iterator[dict[str, Callable[[], object]]]:
        for group in groups_beside_dense(anatomies):
            encoders = [SpeechEncoder(anatomy).to(waveform.device).eval() for anatomy in group]
            first = len(shares)
            shares.extend(_shares(encoder, waveform, max(FEWEST_ROUNDS, rounds // 3)) for encoder in encoders)
            yield {str(number): partial(encoder, waveform) for number, encoder in enumerate(encoders, first)}

    def clock(calls: Mapping[str, Callable[[], object]]) -> dict[str, list[float]]:
        with torch.inference_mode():
            return seconds_in_turns(calls, rounds, waveform.device)

    call_dense: Callable[[], object] = partial(whole, waveform)
    seconds = times_beside_dense(call_dense, sessions(), clock)
    probes = [
        Probe(
            anatomy=anatomy,
            blocks={
                block: 1e9 * seconds.others[str(number)] * share for block, share in shares[number].items()
            },
        )
        for number, anatomy in enumerate(anatomies)
    ]
    return probes, 1e9 * seconds.dense


def _shares(encoder: SpeechEncoder, waveform: torch.Tensor, rounds: int) -> dict[Block, float]:
    """Share of an encoder's time that each of its blocks takes, and what is outside all blocks (`REST`).

    The clocks around blocks wait for the device, which a GPU would otherwise not do; therefore the time of the whole
    encoder is measured without them.
    """
    shortest: dict[Block, float] = {}
    wait = partial(wait_for, waveform.device)
    with torch.inference_mode(), BlockTimer(block_modules(encoder), wait) as timer:
        encoder(waveform)
        for _ in range(rounds):
            timer.nanoseconds.clear()
            wait()
            began = time.perf_counter_ns()
            encoder(waveform)
            wait()
            total = time.perf_counter_ns() - began
            rest = max(0.0, total - sum(timer.nanoseconds.values()))
            for block, nanoseconds in {**timer.nanoseconds, REST: rest}.items():
                shortest[block] = min(nanoseconds, shortest.get(block, math.inf))
    return {block: nanoseconds / sum(shortest.values()) for block, nanoseconds in shortest.items()}


def largest_share(number: int) -> float:
    """Maximum share of the units that the encoder of a number keeps: every second one is small, as at a high target."""
    return SMALL if number % 2 else 1.0


def drawn_anatomy(dense: EncoderAnatomy, draw: np.random.Generator, most: float = 1.0) -> EncoderAnatomy:
    """A random part of a dense encoder: a share of the units of each address, except of blocks, between 5 % and
    `most`.
    """
    table = units(dense)
    kept = np.ones(len(table), dtype=bool)
    for address in table.addresses:
        each = structure(address.structure)
        if each.kind == "block":
            continue
        part = table.part(address)
        kept[part] = draw.random(table.sizes[address]) < draw.uniform(0.05, most)
        kept[part.start : part.start + each.min_kept] = True
    return KeptIndices.of(dense, table.left(kept)).anatomy(dense)


def _fit(kind: str, probes: Sequence[Probe], seconds: float) -> dict[str, float]:
    """Nanoseconds of each feature of a kind of block."""
    names: tuple[str, ...] = ()
    rows, times = [], []
    for probe in probes:
        for block, features in feature_values(probe.anatomy, seconds).items():
            # An empty block has constant time; including it would bend the line through the others.
            if block.kind == kind and block in probe.blocks and all(features.values()):
                names = names or tuple(features)
                if set(features) == set(names):
                    rows.append([features[name] for name in names])
                    times.append(probe.blocks[block])
    return dict(zip(names, fit_times(rows, times), strict=True)) if rows else {}


def _rounds_for(dense: EncoderAnatomy, waveform: torch.Tensor) -> int:
    """Number of rounds that the time limit allows, if a random encoder takes half the time of the dense one."""
    encoder = SpeechEncoder(dense).to(waveform.device).eval()
    with torch.inference_mode():
        encoder(waveform)
        began = time.perf_counter()
        encoder(waveform)
        wait_for(waveform.device)
    # A third of the rounds is repeated for the blocks, and the dense encoder is called for every few others.
    encoders = 4 / 3 * (PROBES + FRONT_ENDS / 2) / 2 + (PROBES + FRONT_ENDS) / BESIDE_DENSE
    round_seconds = (time.perf_counter() - began) * encoders
    return max(FEWEST_ROUNDS, min(MOST_ROUNDS, int(PATIENCE_SECONDS / round_seconds)))
