from __future__ import annotations

import math

import pytest
import torch

from slimvox.evaluation.filter_bank import MELS, deltas, filter_bank, mel_matrix


@pytest.mark.parametrize("hertz", [300.0, 1000.0, 4000.0])
def test_a_tone_is_loudest_in_the_band_around_its_pitch(hertz: float) -> None:
    wave = torch.sin(2 * math.pi * hertz * torch.arange(8000) / 16_000)
    loudest = int(filter_bank(wave)[10, :MELS].argmax())
    low, high = (1127 * math.log(1 + each / 700) for each in (20, 8000))
    expected = (1127 * math.log(1 + hertz / 700) - low) / (high - low) * (MELS + 1) - 1
    assert abs(loudest - expected) < 1


def test_a_hundred_frames_a_second_of_240_dimensions() -> None:
    assert filter_bank(torch.randn(16_000)).shape == (98, 240)
    assert filter_bank(torch.randn(400)).shape == (1, 240)


def test_every_band_has_some_bins() -> None:
    assert (mel_matrix().sum(0) > 0).all()


def test_delta_of_a_ramp_is_its_slope() -> None:
    ramp = 0.7 * torch.arange(20.0).unsqueeze(1).expand(-1, 3)
    torch.testing.assert_close(deltas(ramp)[2:-2], torch.full((16, 3), 0.7))
    # At the edge the first frame is repeated: (1 (0.7 - 0) + 2 (1.4 - 0)) / 10.
    torch.testing.assert_close(deltas(ramp)[0], torch.full((3,), 0.35))


def test_louder_by_a_factor_is_higher_by_a_constant() -> None:
    wave = torch.randn(4000)
    difference = filter_bank(10 * wave)[:, :MELS] - filter_bank(wave)[:, :MELS]
    torch.testing.assert_close(difference, torch.full_like(difference, math.log(100)), atol=1e-3, rtol=0)
