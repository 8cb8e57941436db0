"""Timing of each block of an encoder, by hooks around its modules."""

from __future__ import annotations

import re
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from torch import nn

    from slimvox.structures.anatomy import EncoderAnatomy

Key = TypeVar("Key")
BLOCKS = ("front end", "projection", "position", "attention", "feed forward")
PATTERNS = {
    "front end": r"(^|\.)feature_extractor$",
    "projection": r"(^|\.)feature_projection$",
    "position": r"(^|\.)(pos_conv_embed|rel_attn_embed)$",
    "attention": r"\.\d+\.(attention|self_attn)$",
    "feed forward": r"\.\d+\.feed_forward$",
}
"""Names of the modules, in slimvox and in `transformers`."""


class BlockTimer(Generic[Key]):
    """Adds up the nanoseconds spent in each block while it is entered as a context."""

    def __init__(
        self, modules: Iterable[tuple[Key, nn.Module]], wait: Callable[[], None] = lambda: None
    ) -> None:
        """Prepare the clocks.

        Args:
            modules: modules, each with the block that it belongs to.
            wait: waits until the device has finished, before and after each module.
        """
        self._modules, self._wait = list(modules), wait
        self.nanoseconds: dict[Key, float] = defaultdict(float)
        self._handles: list[Any] = []

    def __enter__(self) -> BlockTimer[Key]:
        for block, module in self._modules:
            self._handles.append(module.register_forward_pre_hook(self._clock(block, -1)))
            self._handles.append(module.register_forward_hook(self._clock(block, 1)))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _clock(self, block: Key, sign: int) -> Any:
        def hook(*_: object) -> None:
            self._wait()
            self.nanoseconds[block] += sign * time.perf_counter_ns()

        return hook


def named_blocks(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules of an encoder, of slimvox or of `transformers`, that make up each of `BLOCKS`."""
    for name, part in module.named_modules():
        for block, pattern in PATTERNS.items():
            # WavLM's bias table inside `transformers`' attention counts as attention there.
            if re.search(pattern, name) and not re.search(r"attention\.", name):
                yield block, part


def median_blocks(runs: list[dict[str, float]]) -> dict[str, float]:
    """Median over runs of each block, and `rest` for operations outside all blocks (norms, residual sums)."""
    return {block: statistics.median(run.get(block, 0.0) for run in runs) for block in (*BLOCKS, "rest")}


def block_costs(anatomy: EncoderAnatomy, seconds: float) -> dict[str, tuple[int, int]]:
    """Parameters and MACs of each block."""
    from slimvox.costs import BLOCK_KINDS, Macs, Parameters

    parameters, macs = Parameters().by_block(anatomy), Macs(seconds).by_block(anatomy)
    return {
        block: (round(parameters.kind(kind)), round(macs.kind(kind)))
        for block, kind in zip(BLOCKS, BLOCK_KINDS, strict=True)
    }
