"""Activation checkpointing: the backward pass recomputes activations that the forward pass did not keep."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from slimvox.encoder import SpeechEncoder


@contextmanager
def recomputation(encoder: SpeechEncoder, enabled: bool = True) -> Iterator[None]:
    """Context in which forward passes keep only the inputs of the front end and of each layer for the backward pass.

    Every one of these parts is computed a second time in the backward pass, with the weights of the first: under
    masks, these are not those that the modules hold.
    """
    parts = [encoder.feature_extractor, *encoder.layers] if enabled else []
    before = {part: part.__dict__.get("forward") for part in parts}
    for part in parts:
        part.forward = partial(_checkpointed, part, part.forward)
    try:
        yield
    finally:
        for part, forward in before.items():
            del part.forward
            if forward is not None:
                part.forward = forward


class _Forward(nn.Module):
    """A module without its hooks, which the first pass has run already."""

    def __init__(self, module: nn.Module, forward: Callable[..., Tensor]) -> None:
        super().__init__()
        self.module = module
        self._forward = forward

    def forward(self, *inputs: Any) -> Tensor:
        return self._forward(*inputs)


def _checkpointed(module: nn.Module, forward: Callable[..., Tensor], *inputs: Any) -> Tensor:
    weights = {f"module.{name}": weight for name, weight in module.named_parameters()}
    # An encoder uses no random numbers, so that there is no random state to restore.
    outputs: Tensor = checkpoint(
        _run, _Forward(module, forward), weights, inputs, use_reentrant=False, preserve_rng_state=False
    )
    return outputs


def _run(module: nn.Module, weights: dict[str, Tensor], inputs: tuple[Any, ...]) -> Tensor:
    outputs: Tensor = functional_call(module, weights, inputs)
    return outputs
