"""Distance between a student's hidden states and its teacher's."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from slimvox.audio.crops import SILENT_PEAK
from slimvox.comparison.linear_map import HeldOutMap
from slimvox.encoder import HasEncoder, SpeechEncoder
from slimvox.structures.anatomy import SAMPLE_RATE_HZ, EncoderAnatomy
from slimvox.util.errors import NotFiniteError, SlimvoxError

FEWEST_FRAMES = 2
"""Minimum number of frames with sound; clips with fewer have no variance and are left out."""


@dataclass(frozen=True, kw_only=True)
class Distance:
    """Distance between two encoders over all hidden states of some audio, without a learned map between them."""

    relative_error: float
    """Squared error divided by the teacher's variance within clips, mean over layers: 0 is a perfect copy, and 1 is no
    better than each clip's mean.
    """
    cosine: float
    """1 - cosine similarity per frame, mean over layers."""
    seconds: float
    """Audio it was measured on, without silence."""
    silent_seconds: float = 0.0
    """Audio left out because its frames contain no sound."""


@dataclass(frozen=True, kw_only=True)
class StateDistances:
    """Distances of each hidden state: the input of the first layer, its output, and so on."""

    relative_errors: tuple[float, ...]
    cosines: tuple[float, ...]
    seconds: float
    silent_seconds: float = 0.0
    mapped_errors: tuple[float, ...] | None = None
    """`relative_errors` after the best linear map of the student's states, see `HeldOutMap`; None if not measured."""
    clips: int = 0
    """Clips it was measured on."""
    silent_clips: int = 0
    """Clips left out entirely because they have fewer than two frames with sound."""

    @property
    def mapped_error(self) -> float | None:
        """Mean of `mapped_errors` over the hidden states."""
        return None if self.mapped_errors is None else statistics.fmean(self.mapped_errors)

    @property
    def mean(self) -> Distance:
        """Mean over the hidden states."""
        return Distance(
            relative_error=statistics.fmean(self.relative_errors),
            cosine=statistics.fmean(self.cosines),
            seconds=self.seconds,
            silent_seconds=self.silent_seconds,
        )


def hidden_state_distance(
    teacher: HasEncoder, student: HasEncoder, waveforms: Iterable[Tensor]
) -> Distance | None:
    """Compare two encoders on audio; None if no audio contains sound.

    Only frames with sound count: at least one of the samples that the front end reads for them exceeds -80 dB of full
    scale.

    Args:
        teacher: encoder whose states are to be matched.
        student: encoder with as many hidden states of the same width.
        waveforms: tensors (batch, samples), 16 kHz, without padding.

    Raises:
        NotFiniteError: if a hidden state is NaN or infinite.
        SlimvoxError: if a state of the teacher does not vary, so that no error is relative to it.
    """
    distances = hidden_state_distances(teacher, student, waveforms)
    return None if distances is None else distances.mean


@torch.no_grad()
def hidden_state_distances(
    teacher: HasEncoder,
    student: HasEncoder,
    waveforms: Iterable[Tensor],
    *,
    names: tuple[str, str] = ("the teacher", "the student"),
    mapped: bool = False,
) -> StateDistances | None:
    """`hidden_state_distance` for each hidden state.

    Args:
        teacher: encoder whose states are to be matched.
        student: encoder with as many hidden states.
        waveforms: tensors (batch, samples).
        names: names of both encoders, for errors.
        mapped: measure the error after the best linear map as well.
    """
    teacher, student = teacher.as_encoder(), student.as_encoder()
    device = next(student.parameters()).device
    states = len(teacher.anatomy.layers) + 1
    # Sums over frames in float64: float32 would overflow for states that are finite, and lose short clips among long.
    errors, variances, cosines = (torch.zeros(states, dtype=torch.float64) for _ in range(3))
    maps = [HeldOutMap() for _ in range(states)] if mapped else []
    samples = silent_samples = frames = clips = silent_clips = 0
    for batch in waveforms:
        sound = frames_with_sound(batch, teacher.anatomy)
        enough = sound.sum(1) >= FEWEST_FRAMES
        silent_clips += int((~enough).sum())
        silent_samples += int((~enough).sum()) * batch.shape[1]
        if not bool(enough.any()):
            continue
        batch, sound = batch[enough], sound[enough]
        silence = int((~sound).sum()) * teacher.anatomy.hop
        silent_samples += silence
        samples += batch.numel() - silence
        clips += len(batch)
        frames += int(sound.sum())
        outputs = [encoder(batch.to(device)).hidden_states for encoder in (teacher, student)]
        for number, (expected, got) in enumerate(zip(*outputs, strict=True)):
            # Clip by clip, because each has its own mean.
            found = zip(got.cpu().double(), expected.cpu().double(), sound, strict=True)
            for clip, (own, target, heard) in enumerate(found, clips - len(batch)):
                for name, encoder, state in zip(names, (teacher, student), (target, own), strict=True):
                    _check_finite(name, encoder, number, state)
                own, target = own[heard], target[heard]
                errors[number] += (own - target).square().sum()
                variances[number] += (target - target.mean(0)).square().sum()
                cosines[number] += (1 - F.cosine_similarity(own, target, dim=-1)).sum()
                if mapped:
                    maps[number].add(clip, own, target)
    if not clips:
        return None

    def relative(errors: Sequence[float]) -> tuple[float, ...]:
        return tuple(
            _relative(error, variance, number, names[0])
            for number, (error, variance) in enumerate(zip(errors, variances.tolist(), strict=True))
        )

    remaining = [error for each in maps if (error := each.squared_error()) is not None]
    return StateDistances(
        relative_errors=relative(errors.tolist()),
        mapped_errors=relative(remaining) if len(remaining) == states else None,
        cosines=tuple((cosines / frames).tolist()),
        seconds=samples / SAMPLE_RATE_HZ,
        silent_seconds=silent_samples / SAMPLE_RATE_HZ,
        clips=clips,
        silent_clips=silent_clips,
    )


def frames_with_sound(waveforms: Tensor, anatomy: EncoderAnatomy) -> Tensor:
    """Mask of the frames that contain sound, (batch, frames) bool, for waveforms (batch, samples)."""
    frames = anatomy.frames(waveforms.shape[1])
    if not frames:
        return torch.zeros(len(waveforms), 0, dtype=torch.bool)
    loud = (waveforms.abs() >= SILENT_PEAK).float()
    loud = F.pad(
        loud, (0, anatomy.receptive_field)
    )  # padded front ends have frames that reach beyond the end
    return F.max_pool1d(loud[:, None], anatomy.receptive_field, anatomy.hop)[:, 0, :frames].cpu() > 0


def _check_finite(name: str, encoder: SpeechEncoder, number: int, state: Tensor) -> None:
    if bool(state.isfinite().all()):
        return
    broken = [key for key, weights in encoder.state_dict().items() if not bool(weights.isfinite().all())]
    reason = (
        f"its weights are not finite either (`{broken[0]}`): get or make the model again"
        if broken
        else "although its weights are finite: they are too large to compute with"
    )
    raise NotFiniteError(f"hidden state {number} of {name} is NaN or infinite, {reason}")


def _relative(error: float, variance: float, number: int, teacher: str) -> float:
    """A quotient that is finite: a copy has error 0 even for a state that never changes."""
    if error == 0:
        return 0.0
    relative = error / variance if variance else math.inf
    if not math.isfinite(relative):
        raise SlimvoxError(
            f"hidden state {number} of {teacher} is the same in all frames, so that its relative error is undefined;"
            " measure on other audio"
        )
    return relative
