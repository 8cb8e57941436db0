"""Difference between an exported program and the model that it was made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from slimvox.exporters.base import Program
from slimvox.exporters.reference import Reference
from slimvox.exporters.signature import FRAME_MASK
from slimvox.util.errors import SlimvoxError


@dataclass(frozen=True, kw_only=True)
class Differences:
    """Largest difference over several inputs."""

    worst_difference: float
    """Largest difference of a single value, as a share of the largest value of its output."""
    inputs: tuple[tuple[int, int], ...]
    """Batch sizes and lengths in samples that were compared."""


def compare(program: Program, reference: Reference) -> Differences:
    """Compare on noise of several lengths and batch sizes, including the shortest and odd lengths.

    With a mask, batches are padded, and one clip of the largest batch is only padding.

    Raises:
        SlimvoxError: if a shape or a frame mask is wrong, or a value is not a number.
    """
    shortest, anatomy = reference.shortest_samples, reference.encoder.anatomy
    hop = anatomy.hop
    inputs: tuple[tuple[int, int], ...] = (
        (1, shortest),
        (2, shortest + hop - 1),
        (3, shortest + 49 * hop + 123),
        (1, shortest + 140 * hop + 1),
    )
    worst = 0.0
    longest = anatomy.most_samples
    inputs = tuple((batch, min(samples, longest or samples)) for batch, samples in inputs)
    for batch, samples in inputs:
        generator = np.random.default_rng(samples)
        waveforms = (0.1 * generator.standard_normal((batch, samples))).astype(np.float32)
        lengths = [samples, max(anatomy.receptive_field, samples // 2), 0][:batch]
        kept = np.arange(samples) < np.array(lengths)[:, None]
        waveforms *= kept
        expected = reference(waveforms, kept)
        found = _run(program, reference, waveforms, kept)
        for name, theirs in expected.items():
            ours = found[name]
            if ours.shape != theirs.shape or not np.isfinite(ours).all():
                raise SlimvoxError(
                    f"the exported model's {name} has a wrong shape or is not finite for {batch} clips of {samples}"
                    " samples: please report this as a bug of slimvox"
                )
        speech = expected.pop(FRAME_MASK, None)
        if speech is not None and not np.array_equal(found[FRAME_MASK], speech):
            raise SlimvoxError(
                "the exported model's frame mask is wrong: please report this as a bug of slimvox"
            )
        for name, theirs in expected.items():
            ours = found[name]
            if speech is not None and ours.ndim == 3:  # outputs for padding have no meaning
                ours, theirs = ours[speech], theirs[speech]
            largest = np.abs(theirs).max(initial=np.finfo(np.float32).tiny)
            worst = max(worst, float(np.abs(ours - theirs).max(initial=0.0) / largest))
    return Differences(worst_difference=worst, inputs=inputs)


def relative_errors(
    program: Program, reference: Reference, clips: Sequence[NDArray[np.float32]]
) -> dict[str, float]:
    """Relative error of each output, ||program - torch|| / ||torch|| over all frames of all clips, one at a time."""
    squares: dict[str, NDArray[np.float64]] = {}
    for clip in clips:
        waveforms = clip[None]
        mask = np.ones(waveforms.shape, dtype=bool)
        found = _run(program, reference, waveforms, mask)
        for name, theirs in reference(waveforms, mask).items():
            if name != FRAME_MASK:
                both = (np.square(found[name] - theirs).sum(), np.square(theirs).sum())
                squares[name] = squares.get(name, np.zeros(2)) + np.array(both, dtype=np.float64)
    return {name: float(np.sqrt(difference / whole)) for name, (difference, whole) in squares.items()}


def _run(
    program: Program, reference: Reference, waveforms: NDArray[Any], mask: NDArray[Any]
) -> dict[str, NDArray[Any]]:
    outputs = program(waveforms, mask) if reference.signature.mask else program(waveforms)
    return dict(zip(reference.outputs, outputs, strict=True))
