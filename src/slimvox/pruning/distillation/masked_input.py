"""Masked input: the student sees only a part of the teacher's input."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimvox.encoder import SpeechEncoder

SPAN_FRAMES = 10
"""Frames that are hidden together (0.2 s), as in the encoders' own pre-training."""


def draw_hidden(shape: tuple[int, int], share: float, generator: torch.Generator | None = None) -> Tensor:
    """Draw spans of frames to hide, (batch, frames) bool.

    Every frame starts a span with the same probability, chosen so that `share` of the frames are hidden on average if
    spans may overlap.
    """
    start = 1 - (1 - share) ** (1 / SPAN_FRAMES)
    # Spans may start before the clip, so that its first frames are hidden as often as the others.
    batch, frames = shape
    starts = torch.rand((batch, 1, frames + SPAN_FRAMES - 1), generator=generator) < start
    return F.max_pool1d(starts.float(), SPAN_FRAMES, stride=1).squeeze(1) > 0


@dataclass(frozen=True, kw_only=True)
class HiddenFrames:
    """Frames that the student is not shown, for the clips of a step or a part of them."""

    mask: Tensor
    """(clips, frames) bool, True for hidden frames."""
    shown: float
    """Number of frames of a clip that are shown, on average over the clips of the whole step."""
    pairs: float
    """The square of that number, on average over the clips of the whole step."""

    @classmethod
    def of(cls, mask: Tensor, present: Sequence[int] | None = None) -> HiddenFrames:
        """Frames that are hidden in a step.

        Args:
            mask: (clips, frames) bool.
            present: indices of the clips that take part in the step; all if not given.
        """
        shown = (~(mask if present is None else mask[list(present)])).sum(1).double()
        return cls(mask=mask, shown=float(shown.mean()), pairs=float(shown.square().mean()))

    def part(self, clips: Sequence[int], device: torch.device) -> HiddenFrames:
        """The hidden frames of some clips of the step, given by their indices."""
        return replace(self, mask=self.mask[list(clips)].to(device))


@contextmanager
def hide_frames(encoder: SpeechEncoder, mask: Tensor | None) -> Iterator[None]:
    """Context in which some input frames of the Transformer are zero.

    Args:
        encoder: the student.
        mask: (batch, frames) bool, True for frames to hide; None for none.
    """
    if mask is None:
        yield
        return

    def hide(_module: nn.Module, _inputs: object, features: Tensor) -> Tensor:
        return features.masked_fill(mask.unsqueeze(-1), 0.0)

    handle = encoder.feature_projection.register_forward_hook(hide)
    try:
        yield
    finally:
        handle.remove()
