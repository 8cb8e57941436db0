"""Timing of each block of an encoder, by hooks around its modules."""

from __future__ import annotations

import re
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from slimvox.costs import BLOCK_KINDS, Macs, Parameters
from slimvox.structures import Block

if TYPE_CHECKING:
    from torch import nn

    from slimvox.structures.anatomy import EncoderAnatomy

Key = TypeVar("Key")
REST = Block("rest")
"""Block for operations outside all blocks (norms, residual sums)."""
PATTERNS = {
    "front_end": r"(^|\.)feature_extractor$",
    "projection": r"(^|\.)feature_projection$",
    "position": r"(^|\.)(pos_conv_embed|rel_attn_embed)$",
    "attention": r"\.(?P<layer>\d+)\.(attention|self_attn)$",
    "feed_forward": r"\.(?P<layer>\d+)\.feed_forward$",
}
"""Names of the modules, in slimvox and in `transformers`, by kind of block."""


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


def block_modules(module: nn.Module) -> Iterator[tuple[Block, nn.Module]]:
    """The modules of an encoder, of slimvox or of `transformers`, each with the block that it belongs to."""
    for name, part in module.named_modules():
        for kind, pattern in PATTERNS.items():
            found = re.search(pattern, name)
            # WavLM's bias table inside `transformers`' attention counts as attention there.
            if found and not re.search(r"attention\.", name):
                layer = found.groupdict().get("layer")
                yield Block(kind, None if layer is None else int(layer)), part


def median_blocks(runs: list[dict[str, float]]) -> dict[str, float]:
    """Median over runs of each kind of block, and of `REST`."""
    kinds = (*BLOCK_KINDS, REST.kind)
    return {kind: statistics.median(run.get(kind, 0.0) for run in runs) for kind in kinds}


def block_costs(anatomy: EncoderAnatomy, seconds: float) -> dict[str, tuple[int, int]]:
    """Parameters and MACs of each kind of block."""
    parameters, macs = Parameters().by_block(anatomy), Macs(seconds).by_block(anatomy)
    return {kind: (round(parameters.kind(kind)), round(macs.kind(kind))) for kind in BLOCK_KINDS}


def name_in_results(kind: str) -> str:
    """Name of a kind of block in results, such as `feed forward`."""
    return kind.replace("_", " ")
