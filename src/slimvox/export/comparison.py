"""How far an exported program is from the encoder it was made from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from slimvox.encoder import SpeechEncoder
from slimvox.errors import SlimvoxError
from slimvox.export.signature import Signature

Program = Callable[..., Sequence[NDArray[Any]]]
"""Waveforms, and a mask if it takes one, to the outputs."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The worst of several inputs."""

    worst_difference: float
    """Largest difference of one value, as a share of the largest value of its hidden state."""
    inputs: tuple[tuple[int, int], ...]
    """Batch sizes and lengths in samples that were compared."""


def compare(program: Program, encoder: SpeechEncoder, signature: Signature) -> Comparison:
    """Compare on noise of several lengths and batch sizes, one frame and odd lengths among them.

    With a mask, batches are padded, and one clip of the largest is padding altogether.

    Raises:
        SlimvoxError: if a frame mask is wrong, or a value is no number.
    """
    anatomy, mask = encoder.anatomy, signature.mask
    one, hop = anatomy.receptive_field, anatomy.hop
    inputs = ((1, one), (2, one + hop - 1), (3, one + 49 * hop + 123), (1, one + 140 * hop + 1))
    worst = 0.0
    for batch, samples in inputs:
        generator = np.random.default_rng(samples)
        waveforms = (0.1 * generator.standard_normal((batch, samples))).astype(np.float32)
        lengths = [samples, max(one, samples // 2), 0][:batch]
        kept = np.arange(samples) < np.array(lengths)[:, None]
        waveforms *= kept
        expected = expected_outputs(encoder, waveforms, kept if mask else None, signature)
        found = program(waveforms, kept) if mask else program(waveforms)
        if mask and not np.array_equal(found[-1], expected[-1]):
            raise SlimvoxError(
                "the exported model's frame mask is wrong: please report this as a bug of slimvox"
            )
        for ours, theirs in zip(expected[: len(expected) - mask], found, strict=False):
            if ours.shape != theirs.shape or not np.isfinite(theirs).all():
                raise SlimvoxError(
                    f"the exported model gives wrong shapes or no numbers for {batch} clips of {samples} samples:"
                    " please report this as a bug of slimvox"
                )
            difference = np.abs(ours - theirs)
            if mask:
                ours, difference = ours[expected[-1]], difference[expected[-1]]
            worst = max(worst, float(difference.max() / np.abs(ours).max()))
    return Comparison(worst_difference=worst, inputs=inputs)


def relative_errors(
    program: Program, encoder: SpeechEncoder, signature: Signature, clips: Sequence[NDArray[np.float32]]
) -> tuple[float, ...]:
    """For each hidden state, ||program - encoder|| / ||encoder|| over all frames of all clips, one at a time."""
    squares: NDArray[np.float64] | None = None
    for clip in clips:
        waveforms = clip[None]
        expected = expected_outputs(encoder, waveforms, None, signature)
        found = (
            program(waveforms, np.ones(waveforms.shape, dtype=bool)) if signature.mask else program(waveforms)
        )
        pairs = list(zip(expected, found, strict=False))
        new = np.array([[np.square(f - e).sum(), np.square(e).sum()] for e, f in pairs], dtype=np.float64)
        squares = new if squares is None else squares + new
    assert squares is not None
    return tuple(float(value) for value in np.sqrt(squares[:, 0] / squares[:, 1]))


def expected_outputs(
    encoder: SpeechEncoder, waveforms: NDArray[Any], mask: NDArray[Any] | None, signature: Signature
) -> list[NDArray[Any]]:
    """What `Signature.outputs` names, computed by the encoder itself."""
    with torch.inference_mode():
        output = encoder(torch.from_numpy(waveforms), None if mask is None else torch.from_numpy(mask))
    states = [] if signature.last_only else list(output.hidden_states)
    if signature.last_only or encoder.anatomy.pre_norm:
        states.append(output.last_hidden_state)
    tensors = states if mask is None else [*states, output.frame_mask]
    return [tensor.numpy() for tensor in tensors]
