"""Measuring encoders of many sizes, to know what each size costs on this machine."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np
import torch

from slimvox.anatomy import SAMPLE_RATE_HZ, EncoderAnatomy, HeadAnatomy, LayerAnatomy
from slimvox.cost import LayerSizes, Number, sizes_of
from slimvox.encoder import SpeechEncoder
from slimvox.errors import SlimvoxError
from slimvox.latency.fit import fit_times
from slimvox.latency.real_time import wait_for
from slimvox.latency.table import (
    LatencyTable,
    attention_terms,
    feed_forward_terms,
    front_end_terms,
    projection_terms,
)

PROBES, UNSEEN = 14, 4
"""Encoders that are measured (the first is the dense one), and how many of them only check the table."""
FRONT_ENDS = 16
"""Front ends that are measured alone: an encoder has many layers, but one front end."""
FEWEST_ROUNDS, MOST_ROUNDS = 3, 9
PATIENCE_SECONDS = 40.0
"""About how long measuring may take, where the fewest rounds leave a choice."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """An encoder and how long its parts took."""

    anatomy: EncoderAnatomy
    blocks: dict[str, float]
    """Nanoseconds by the name of the block's module, and of what is in none (`rest`)."""

    @property
    def total(self) -> float:
        """Nanoseconds of the whole."""
        return sum(self.blocks.values())


def measure_latency(
    dense: EncoderAnatomy, *, seconds: float = 10.0, device: torch.device | str = "cpu", seed: int = 0
) -> LatencyTable:
    """Time encoders of drawn sizes, float32 and without gradients, and fit a table to them.

    Each probe has random weights, and in every convolution and layer its own random sizes between nothing and those
    of `dense`, with heads of unequal width as pruning leaves them. One forward pass of it times every block apart. Of
    several rounds the shortest counts: whatever else the machine does can only add to it.

    Args:
        dense: the encoder with everything in it.
        seconds: length of the clip, one at a time.
        device: where to run.
        seed: of the sizes.

    Raises:
        SlimvoxError: if the clip is shorter than a frame, or its length is not a number.
    """
    device = torch.device(device)
    shortest = dense.receptive_field / SAMPLE_RATE_HZ
    if not shortest <= seconds < math.inf:
        raise SlimvoxError(
            f"the clip to measure computing times on (`target.seconds`) must be finite and at least {shortest:g} s,"
            f" one frame, but is {seconds:g} s instead"
        )
    draw = np.random.default_rng(seed)
    waveform = 0.1 * torch.randn(1, round(seconds * SAMPLE_RATE_HZ), device=device)
    rounds = _rounds_for(dense, waveform)
    probes = [
        Probe(anatomy=anatomy, blocks=_time_blocks(anatomy, waveform, rounds))
        for anatomy in (dense, *(drawn_anatomy(dense, draw) for _ in range(PROBES - 1)))
    ]
    seen, unseen = probes[:-UNSEEN], probes[-UNSEEN:]
    fronts = [(probe.anatomy, probe.blocks["feature_extractor"]) for probe in seen]
    for _ in range(FRONT_ENDS):
        front = replace(drawn_anatomy(dense, draw), layers=())
        fronts.append((front, _time_blocks(front, waveform, rounds)["feature_extractor"]))
    table = LatencyTable(
        seconds=seconds,
        device=device.type,
        threads=torch.get_num_threads(),
        front_end=fit_times(
            [front_end_terms(each, sizes_of(each).channels, seconds) for each, _ in fronts],
            [nanoseconds for _, nanoseconds in fronts],
        ),
        projection=fit_times(
            [projection_terms(probe.anatomy.convolutions[-1].channels) for probe in seen],
            [probe.blocks["feature_projection"] for probe in seen],
        ),
        # Without heads, or with no width, a block is a constant: it would bend the line through the others.
        attention=_fit_layers(seen, "attention", attention_terms, lambda layer: layer.heads),
        feed_forward=_fit_layers(seen, "feed_forward", feed_forward_terms, lambda layer: layer.intermediate),
        position=median(
            probe.blocks["pos_conv_embed"] + probe.blocks.get("rel_attn_embed", 0.0) for probe in seen
        ),
        rest=median(probe.blocks["rest"] for probe in seen),
        error=0.0,
    )
    errors = [abs(table.nanoseconds(probe.anatomy) / probe.total - 1) for probe in unseen]
    return replace(table, error=median(errors))


def drawn_anatomy(dense: EncoderAnatomy, draw: np.random.Generator) -> EncoderAnatomy:
    """A random part of a dense encoder; its front end, and each of its layers, keeps a share of its own."""

    def part(size: int, share: float) -> int:
        return int(draw.binomial(size, min(1.0, share)))

    front = draw.uniform(0.15, 1)
    convolutions = tuple(
        replace(each, channels=max(1, part(each.channels, front * draw.uniform(0.6, 1.4))))
        for each in dense.convolutions
    )
    layers = []
    for layer in dense.layers:
        heads_share, width_share = draw.uniform(0.1, 1), draw.uniform(0.2, 1)
        heads = tuple(
            HeadAnatomy(
                index=head.index, qk=part(head.qk, width_share), vo=max(1, part(head.vo, width_share))
            )
            for head in layer.heads
            if draw.random() < heads_share
        )
        layers.append(
            LayerAnatomy(
                attention=layer.attention,
                heads=heads,
                feed_forward=layer.feed_forward,
                intermediate=part(layer.intermediate, draw.uniform(0.02, 1)),
            )
        )
    return replace(dense, convolutions=convolutions, layers=tuple(layers))


def _fit_layers(
    probes: Sequence[Probe],
    block: str,
    terms: Callable[[LayerSizes], tuple[Number, ...]],
    there: Callable[[LayerSizes], Number],
) -> tuple[float, ...]:
    rows = [
        (terms(layer), probe.blocks[f"layers.{index}.{block}"])
        for probe in probes
        for index, layer in enumerate(sizes_of(probe.anatomy).layers)
        if there(layer)
    ]
    return fit_times([each for each, _ in rows], [nanoseconds for _, nanoseconds in rows])


def _rounds_for(dense: EncoderAnatomy, waveform: torch.Tensor) -> int:
    """As many as patience allows, taking a drawn encoder for half a dense one."""
    encoder = SpeechEncoder(dense).to(waveform.device).eval()
    with torch.inference_mode():
        encoder(waveform)
        began = time.perf_counter()
        encoder(waveform)
        wait_for(waveform.device)
    round_seconds = (time.perf_counter() - began) * (PROBES + FRONT_ENDS / 2) / 2
    return max(FEWEST_ROUNDS, min(MOST_ROUNDS, int(PATIENCE_SECONDS / round_seconds)))


def _time_blocks(anatomy: EncoderAnatomy, waveform: torch.Tensor, rounds: int) -> dict[str, float]:
    """See `Probe.blocks`: the shortest of several rounds, each block for itself."""
    encoder = SpeechEncoder(anatomy).to(waveform.device).eval()
    shortest: dict[str, float] = {}
    with torch.inference_mode():
        encoder(waveform)
        for _ in range(rounds):
            with _clocks(encoder, waveform.device) as spent:
                wait_for(waveform.device)
                began = time.perf_counter_ns()
                encoder(waveform)
                wait_for(waveform.device)
                total = time.perf_counter_ns() - began
                spent["rest"] = max(0.0, total - sum(spent.values()))
            for name, nanoseconds in spent.items():
                shortest[name] = min(nanoseconds, shortest.get(name, float("inf")))
    return shortest


@contextmanager
def _clocks(encoder: SpeechEncoder, device: torch.device) -> Iterator[dict[str, float]]:
    """Hooks that time every block of the encoder while the context is open."""
    spent: dict[str, float] = {}
    handles = []

    def clock(name: str, sign: int) -> Any:
        def hook(*_: object) -> None:
            wait_for(device)
            spent[name] = spent.get(name, 0.0) + sign * time.perf_counter_ns()

        return hook

    def is_block(name: str) -> bool:
        top_level = "." not in name and name not in ("", "layers", "layer_norm")
        return top_level or name.endswith((".attention", ".feed_forward"))

    for name, module in encoder.named_modules():
        if is_block(name):
            handles.append(module.register_forward_pre_hook(clock(name, -1)))
            handles.append(module.register_forward_hook(clock(name, 1)))
    try:
        yield spent
    finally:
        for handle in handles:
            handle.remove()
