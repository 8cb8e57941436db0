"""Distances by hand, without silence; and no number that is not finite."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models import config
from slimvox.checkpoint.transformers_config import anatomy_from_config
from slimvox.comparison.distance import (
    Distance,
    frames_with_sound,
    hidden_state_distance,
    hidden_state_distances,
)
from slimvox.encoder import EncoderOutput
from slimvox.structures.anatomy import SAMPLE_RATE_HZ, EncoderAnatomy
from slimvox.util.errors import NotFiniteError, SlimvoxError
from students import make_student, make_teacher

ANATOMY = replace(
    anatomy_from_config(config("hubert", num_hidden_layers=1).to_dict(), "test", normalize_waveform=False)
)
HOP, FIELD = ANATOMY.hop, ANATOMY.receptive_field


class Frames(nn.Module):
    """An encoder of two states: each frame's first sample, and a factor of it plus a constant."""

    def __init__(self, anatomy: EncoderAnatomy, factor: float = 1.0, shift: float = 0.0) -> None:
        super().__init__()
        self.anatomy = anatomy
        self.factor = nn.Parameter(torch.tensor(factor))
        self.shift = shift

    def as_encoder(self) -> Any:
        return self

    def forward(self, waveforms: Tensor) -> EncoderOutput:
        frames = self.anatomy.frames(waveforms.shape[1])
        first = waveforms[:, : frames * HOP : HOP, None]
        first = torch.cat([first, torch.ones_like(first)], -1)
        states = (first, self.factor * first + self.shift)
        mask = torch.ones(first.shape[:2], dtype=torch.bool)
        return EncoderOutput(last_hidden_state=states[-1], hidden_states=states, frame_mask=mask)


def waveform(*frames: float) -> Tensor:
    """(1, samples): `frames` are the first samples of the frames; what lies between is silent but for the value."""
    samples = torch.zeros(1, (len(frames) - 1) * HOP + FIELD)
    samples[0, : len(frames) * HOP : HOP] = torch.tensor(frames)
    return samples


def distances(*clips: Tensor, factor: float = 1.0, shift: float = 0.0) -> Any:
    teacher, student = Frames(ANATOMY), Frames(ANATOMY, factor, shift)
    return hidden_state_distances(teacher, student, clips)  # type: ignore[arg-type]


def test_distances_by_hand() -> None:
    """Errors of both clips, over the variance of each around its own mean; angles frame by frame."""
    one, two = [0.1, 0.3, 0.5], [0.9, 0.1]
    measured = distances(waveform(*one), waveform(*two), factor=1.5, shift=0.25)
    errors = sum((0.5 * x + 0.25) ** 2 + 0.75**2 for x in one + two)
    variances = 2 * 0.2**2 + 2 * 0.4**2
    assert measured.relative_errors[0] == 0 and measured.cosines[0] == pytest.approx(0, abs=1e-9)
    assert measured.relative_errors[1] == pytest.approx(errors / variances)

    def cosine(x: float) -> float:
        own = (1.5 * x + 0.25, 1.75)
        return (own[0] * x + own[1]) / math.hypot(*own) / math.hypot(x, 1)

    assert measured.cosines[1] == pytest.approx(sum(1 - cosine(x) for x in one + two) / 5)
    assert (measured.clips, measured.silent_clips, measured.silent_seconds) == (2, 0, 0)
    assert measured.seconds == pytest.approx((3 * HOP + 2 * FIELD) / SAMPLE_RATE_HZ)
    assert measured.mean == Distance(
        relative_error=measured.relative_errors[1] / 2,
        cosine=pytest.approx(sum(measured.cosines) / 2),
        seconds=measured.seconds,
    )
    assert distances() is None


def test_a_batch_is_its_clips_one_by_one() -> None:
    clips = [waveform(0.1, 0.2, 0.7), waveform(0.9, 0.4, 0.3)]
    apart, together = distances(*clips, factor=2.0), distances(torch.cat(clips), factor=2.0)
    assert together == apart


def test_the_student_runs_on_what_the_teacher_hears() -> None:
    """Teacher and student are not exchanged: errors are over the teacher's variance."""
    assert distances(waveform(0.1, 0.5), factor=3.0).relative_errors[1] == pytest.approx(
        (4 * (0.01 + 0.25) + 2 * 4) / (2 * 0.04)
    )


def test_silence_does_not_count() -> None:
    sound = waveform(0.2, 0.4, 0.3)
    expected = distances(sound, factor=1.5)
    silent = torch.full((1, 4 * SAMPLE_RATE_HZ), 5e-5)
    beside = distances(sound, silent, factor=1.5)
    assert beside.relative_errors == expected.relative_errors and beside.cosines == expected.cosines
    assert (beside.clips, beside.silent_clips) == (1, 1)
    assert beside.seconds == expected.seconds and beside.silent_seconds == pytest.approx(4.0)
    # Frames without sound within a clip: those of which no sample is heard.
    within = torch.cat([sound, torch.zeros(1, 40 * HOP)], 1)
    heard = frames_with_sound(within, ANATOMY)
    assert (
        heard.shape == (1, ANATOMY.frames(within.shape[1])) and heard[0, :3].all() and not heard[0, 3:].any()
    )
    inside = distances(within, factor=1.5)
    assert inside.relative_errors == expected.relative_errors and inside.cosines == expected.cosines
    assert inside.silent_seconds == pytest.approx(int((~heard).sum()) * HOP / SAMPLE_RATE_HZ)
    assert inside.seconds + inside.silent_seconds == pytest.approx(within.shape[1] / SAMPLE_RATE_HZ)
    assert distances(silent) is None
    assert hidden_state_distance(Frames(ANATOMY), Frames(ANATOMY), [silent]) is None  # type: ignore[arg-type]


def test_a_frame_holds_sound_if_one_of_its_samples_does() -> None:
    samples = torch.zeros(3, FIELD + 3 * HOP)
    samples[0, FIELD - 1] = 1e-4  # the last sample of the first frame
    samples[1, -1] = -1.0
    samples[2, 0] = 0.99e-4
    heard = frames_with_sound(samples, ANATOMY)
    first = [index * HOP <= FIELD - 1 for index in range(4)]
    assert heard.tolist() == [first, [False, False, False, True], [False] * 4]
    assert frames_with_sound(torch.ones(2, FIELD - 1), ANATOMY).shape == (2, 0)


def test_one_frame_gives_no_infinity() -> None:
    assert distances(waveform(0.4), factor=2.0) is None
    beside = distances(waveform(0.2, 0.4, 0.3), waveform(0.9), factor=2.0)
    assert beside == replace(
        distances(waveform(0.2, 0.4, 0.3), factor=2.0),
        silent_clips=1,
        silent_seconds=FIELD / SAMPLE_RATE_HZ,
    )


def test_a_state_that_never_changes_is_an_error_unless_copied() -> None:
    assert distances(waveform(0.5, 0.5)).relative_errors == (0.0, 0.0)
    with pytest.raises(SlimvoxError, match="hidden state 1 of the teacher is the same in all frames"):
        distances(waveform(0.5, 0.5), factor=2.0)


def test_errors_beyond_float32_are_finite() -> None:
    assert math.isfinite(distances(waveform(0.2, 0.4), factor=1e30).relative_errors[1])


@pytest.mark.parametrize("broken", [math.nan, math.inf])
@pytest.mark.parametrize("which", ["the teacher", "the student"])
def test_states_that_are_not_finite_are_an_error_that_names_the_encoder(which: str, broken: float) -> None:
    encoders = {"the teacher": Frames(ANATOMY), "the student": Frames(ANATOMY)}
    encoders[which].factor.data.fill_(broken)
    with pytest.raises(NotFiniteError, match=f"hidden state 1 of {which} is NaN or infinite.*`factor`"):
        hidden_state_distances(*encoders.values(), [waveform(0.1, 0.2)])  # type: ignore[arg-type]
    encoders[which].factor.data.fill_(1.0)
    encoders[which].shift = broken
    with pytest.raises(NotFiniteError, match="although its weights are finite"):
        hidden_state_distances(*encoders.values(), [waveform(0.1, 0.2)])  # type: ignore[arg-type]


CLIPS = [torch.randn(2, 800), torch.randn(1, 1600)]


class Fixed(nn.Module):
    """An encoder whose hidden states are a function of the samples: a frame of two values for every two samples."""

    def __init__(self, *states: Any) -> None:
        super().__init__()
        self.states = states
        # A frame of two samples for every two samples.
        self.anatomy = SimpleNamespace(
            hop=2, receptive_field=2, layers=states[1:], frames=lambda samples: samples // 2
        )
        self.weight = nn.Parameter(torch.zeros(1))

    def as_encoder(self) -> Any:
        return self

    def forward(self, waveforms: Tensor) -> Any:
        frames = waveforms.unflatten(1, (-1, 2))
        return SimpleNamespace(hidden_states=tuple(state(frames) for state in self.states))


def test_errors_and_cosines_of_several_clips_by_hand() -> None:
    """Errors are pooled over clips before they are divided, frames are what cosines are averaged over."""
    teacher: Any = Fixed(lambda x: x, lambda x: 3 * x)
    student: Any = Fixed(lambda x: x + 0.5, lambda x: x @ torch.tensor([[0.0, 3.0], [-3.0, 0.0]]))
    measured = hidden_state_distances(teacher, student, CLIPS)
    assert measured is not None
    frames = [clip.unflatten(1, (-1, 2)) for clip in CLIPS]
    variance = sum(float((each - each.mean(1, keepdim=True)).square().sum()) for each in frames)
    squares = sum(float(each.square().sum()) for each in frames)
    shifted = sum(0.25 * each.numel() for each in frames)
    assert measured.relative_errors == pytest.approx([shifted / variance, 2 * squares / variance], rel=1e-4)
    flat = torch.cat([each.reshape(-1, 2) for each in frames])
    cosine = 1 - float(torch.cosine_similarity(flat, flat + 0.5, dim=-1).mean())
    assert measured.cosines == pytest.approx([cosine, 1.0], rel=1e-4)  # the second is turned by a right angle
    assert measured.seconds == pytest.approx(3200 / 16_000)
    mean = hidden_state_distance(teacher, student, CLIPS)
    assert mean == measured.mean
    assert mean is not None
    assert mean.relative_error == pytest.approx(sum(measured.relative_errors) / 2)
    assert mean.cosine == pytest.approx(sum(measured.cosines) / 2)


def test_a_copy_is_at_distance_0_and_a_constant_at_1() -> None:
    copy = make_teacher()
    measured = hidden_state_distances(copy, copy, CLIPS)
    assert measured is not None and len(measured.relative_errors) == len(copy.layers) + 1
    assert max(measured.relative_errors) == 0 and max(measured.cosines) == pytest.approx(0, abs=1e-5)
    clip = torch.randn(1, 800)
    mean = clip.unflatten(1, (-1, 2)).mean((0, 1))
    teacher: Any = Fixed(lambda x: x)
    constant: Any = Fixed(mean.expand_as)
    measured = hidden_state_distances(teacher, constant, [clip])
    assert measured is not None and measured.relative_errors == pytest.approx([1.0], rel=1e-4)


def test_the_further_the_weights_the_greater_the_distance() -> None:
    teacher = make_teacher()
    near, far = (
        hidden_state_distance(teacher, make_student(teacher, noise=noise).encoder, CLIPS)
        for noise in (0.1, 0.5)
    )
    assert near is not None and far is not None
    assert 0 < near.relative_error < far.relative_error and 0 < near.cosine < far.cosine


def test_nothing_is_differentiated_and_without_audio_there_is_nothing() -> None:
    seen = []

    def state(frames: Tensor) -> Tensor:
        seen.append(torch.is_grad_enabled())
        return frames

    encoder: Any = Fixed(state)
    assert hidden_state_distance(encoder, encoder, []) is None
    assert hidden_state_distances(encoder, encoder, iter(())) is None
    assert hidden_state_distances(encoder, encoder, CLIPS) is not None
    assert seen == [False] * 4
