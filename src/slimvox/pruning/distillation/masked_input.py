"""Masked input: the student sees a part of what the teacher sees."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimvox.encoder import SpeechEncoder

SPAN_FRAMES = 10
"""Frames that are hidden together (0.2 s), as in the encoders' own pre-training."""


def draw_hidden(shape: tuple[int, int], share: float, generator: torch.Generator | None = None) -> Tensor:
    """Spans to hide, (batch, frames) bool.

    Every frame starts a span with the same probability, chosen so that `share` of the frames are hidden on average
    where spans overlap as they like.
    """
    start = 1 - (1 - share) ** (1 / SPAN_FRAMES)
    # Spans may start before the clip, so that its first frames are hidden as often as the others.
    batch, frames = shape
    starts = torch.rand((batch, 1, frames + SPAN_FRAMES - 1), generator=generator) < start
    return F.max_pool1d(starts.float(), SPAN_FRAMES, stride=1).squeeze(1) > 0


@contextmanager
def hide_frames(
    encoder: SpeechEncoder, share: float, generator: torch.Generator | None
) -> Iterator[list[Tensor]]:
    """While it lasts, spans of what enters the Transformer are zero.

    Args:
        encoder: the student.
        share: of the frames, 0 for none.
        generator: a CPU generator.

    Yields:
        A list to which each forward pass adds which frames were hidden, (batch, frames) bool; empty where `share` is 0.
    """
    drawn: list[Tensor] = []
    if not share:
        yield drawn
        return

    def hide(_module: nn.Module, _inputs: object, features: Tensor) -> Tensor:
        hidden = draw_hidden((features.shape[0], features.shape[1]), share, generator).to(features.device)
        drawn.append(hidden)
        return features.masked_fill(hidden.unsqueeze(-1), 0.0)

    handle = encoder.feature_projection.register_forward_hook(hide)
    try:
        yield drawn
    finally:
        handle.remove()
