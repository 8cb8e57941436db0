"""The rows of audio that the embedded teacher was trained on, and how they are disturbed."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parents[2] / "training"))

from corpus import HELD_OUT, Corpus
from disturbance import Disturbance

UTTERANCES = HELD_OUT + 8


def write_corpus(folder: Path, waveform: np.ndarray, lengths: np.ndarray) -> Corpus:
    waveform.astype(np.int16).tofile(folder / "wave.i16")
    starts = np.cumsum(lengths) - lengths
    lines = [
        f"a\t{n}\t{start}\t{length}" for n, (start, length) in enumerate(zip(starts, lengths, strict=True))
    ]
    (folder / "index.tsv").write_text("set\tid\tstart\tsamples\n" + "\n".join(lines) + "\n")
    return Corpus(folder, torch.device("cpu"))


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """Noise in utterances of 4,000 to 8,000 samples."""
    random = np.random.default_rng(0)
    lengths = random.integers(4_000, 8_000, UTTERANCES)
    return write_corpus(tmp_path, random.integers(-8_000, 8_000, lengths.sum()), lengths)


def test_a_pass_has_every_utterance_once_and_no_held_out_one(corpus: Corpus) -> None:
    heard: list[int] = []
    while len(heard) < 2 * len(corpus.training):
        for row in corpus.rows(2, 3_000).utterance:
            heard += [each for each in row.unique_consecutive().tolist() if heard[-1:] != [each]]
    one, two = heard[: len(corpus.training)], heard[len(corpus.training) : 2 * len(corpus.training)]
    assert sorted(one) == sorted(two) == sorted(corpus.training.tolist()) and one != two


def test_a_row_is_the_audio_at_its_speed_and_amplitude(corpus: Corpus) -> None:
    rows, speeds = corpus.rows(1, 60_000), set()
    waveform = corpus.waveform.double() / 32768
    for utterance in rows.utterance.unique().tolist():
        chosen = rows.utterance == utterance
        values = (rows.waveforms[chosen] / rows.gain[chosen])[:2_000].double()
        original, start = bool(rows.original[chosen][0]), int(corpus.table[utterance, 0])
        speeds.add(original)
        same = torch.allclose(values, waveform[start + 1 : start + 1 + len(values)], atol=1e-6)
        assert same == original
        assert 0.5 <= float(rows.gain[chosen].min()) <= 1.5
    assert speeds == {True, False}


def test_an_utterance_goes_on_in_the_next_rows(corpus: Corpus, tmp_path: Path) -> None:
    whole = Corpus(tmp_path, torch.device("cpu")).rows(1, 60_000)
    parts = [corpus.rows(2, 500) for _ in range(60)]
    torch.testing.assert_close(
        torch.cat([part.waveforms.flatten() for part in parts]), whole.waveforms[0], atol=1e-5, rtol=0
    )
    assert torch.equal(torch.cat([part.utterance.flatten() for part in parts]), whole.utterance[0])


def test_another_speed_is_another_pitch(tmp_path: Path) -> None:
    """A tone of 500 Hz is one of 500 Hz times the speed."""
    tone = 8_000 * np.sin(2 * np.pi * 500 / 16_000 * np.arange(UTTERANCES * 16_000))
    corpus, pitches = write_corpus(tmp_path, tone, np.full(UTTERANCES, 16_000)), []
    rows = corpus.rows(1, 300_000)
    for utterance in rows.utterance.unique().tolist():
        values = rows.waveforms[rows.utterance == utterance]
        if len(values) > 12_000:
            bins = torch.fft.rfft(values * torch.hann_window(len(values)), 2**17).abs()
            pitches.append(float(bins.argmax()) * 16_000 / 2**17)
    changed = [pitch for pitch in pitches if abs(pitch - 500) > 0.5]
    assert changed and len(changed) < len(pitches)
    assert all(500 * 0.85 - 1 <= pitch <= 500 * 1.18 + 1 for pitch in changed)


def test_other_speech_is_added_at_the_ratio_that_was_drawn() -> None:
    waveforms = torch.randn(64, 4_000) * torch.rand(64, 1)
    mixed, factor = Disturbance(mixed=0.5, noisy=0.0, mixed_snr=(0.0, 15.0)).mix(waveforms)
    assert torch.allclose(mixed, waveforms + factor.unsqueeze(1) * waveforms.roll(1, 0), atol=1e-6)
    added = factor > 0
    assert 16 < int(added.sum()) < 48
    power = waveforms.square().mean(-1)
    ratio = 10 * torch.log10(power / (factor.square() * power.roll(1)))[added]
    assert float(ratio.min()) >= -0.1 and float(ratio.max()) <= 15.1 and float(ratio.std()) > 2


def test_noise_is_added_to_its_share_of_the_rows() -> None:
    waveforms = torch.randn(400, 2_000)
    mixed, factor = Disturbance(mixed=0.0, noisy=0.25, noisy_snr=(10.0, 10.0)).mix(waveforms)
    added = (mixed - waveforms).square().mean(-1)
    assert not factor.any()
    assert 0.17 < float((added > 0).float().mean()) < 0.33
    torch.testing.assert_close(
        added[added > 0], 0.1 * waveforms.square().mean(-1)[added > 0], rtol=1e-3, atol=0
    )


def test_hidden_frames_cover_their_share_in_spans() -> None:
    hidden = Disturbance(masked=0.5, masked_frames=0.3, span=8).hidden_frames((400, 500), torch.device("cpu"))
    rows = hidden.any(-1)
    assert 0.4 < float(rows.float().mean()) < 0.6
    assert float(hidden[rows].float().mean()) == pytest.approx(0.3, abs=0.02)
    shortest = [
        int(lengths[1:-1][values[1:-1]].min())
        for values, lengths in (row.unique_consecutive(return_counts=True) for row in hidden[rows][:20])
    ]
    assert min(shortest) >= 8
