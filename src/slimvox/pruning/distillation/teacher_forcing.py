"""Teacher forcing: layers of the student start from the teacher's states."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from torch import Tensor, nn

from slimvox.encoder import SpeechEncoder


@contextmanager
def teacher_forcing(encoder: SpeechEncoder, states: Sequence[Tensor], share: float) -> Iterator[None]:
    """Context in which the input of each Transformer layer is x + share (t - x).

    x is the output of the student's previous layer and t the teacher's state at the same place. At a share of 1, every
    layer learns its own step from a perfect start, and no gradient crosses layers; at 0, the student computes as in
    use. The hidden states that the encoder returns are those of its own layers, before the teacher's are mixed in.

    Args:
        encoder: the student, with as many layers as the teacher (whatever is left of them).
        states: the teacher's hidden states, layers + 1 of (batch, frames, width).
        share: of the teacher, between 0 and 1.

    Raises:
        ValueError: if there are not layers + 1 states.
    """
    if len(states) != len(encoder.layers) + 1:
        raise ValueError(
            f"`states` must be {len(encoder.layers) + 1} hidden states, but are {len(states)} instead"
        )
    if not share:
        yield
        return
    handles = [
        layer.register_forward_pre_hook(partial(_mix, state=state, share=share))
        for layer, state in zip(encoder.layers, states, strict=False)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _mix(
    _module: nn.Module, inputs: tuple[Tensor, ...], *, state: Tensor, share: float
) -> tuple[Tensor, ...]:
    x, *others = inputs
    return (x + share * (state.to(x.dtype) - x), *others)
