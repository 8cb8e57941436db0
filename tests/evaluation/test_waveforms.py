from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from slimvox.evaluation.examples import Clip, Recording
from slimvox.evaluation.waveforms import Excerpt, read_waveform


def test_clips_are_summed_at_their_places(tmp_path: Path) -> None:
    first, second = tmp_path / "a.wav", tmp_path / "b.wav"
    soundfile.write(first, np.full(16_000, 0.25, np.float32), 16_000, subtype="FLOAT")
    soundfile.write(second, np.full(16_000, 0.5, np.float32), 16_000, subtype="FLOAT")
    mixture = Recording(
        id="mixture",
        clips=(
            Clip(path=first),
            Clip(path=second, at_seconds=0.5, gain=0.5, start_seconds=0.25, end_seconds=1.0),
        ),
    )
    waveform = read_waveform(Excerpt(recording=mixture))
    assert len(waveform) == 20_000
    np.testing.assert_allclose(waveform[:8000], 0.25)
    np.testing.assert_allclose(waveform[8000:16_000], 0.5)
    np.testing.assert_allclose(waveform[16_000:], 0.25)


def test_an_excerpt_is_cut_at_the_same_place_every_time(tmp_path: Path) -> None:
    path = tmp_path / "ramp.wav"
    soundfile.write(path, np.linspace(0, 0.9, 32_000, dtype=np.float32), 16_000, subtype="FLOAT")

    def cut(id: str, seconds: float) -> np.ndarray:
        return read_waveform(Excerpt(recording=Recording.of_file(id, path), max_seconds=seconds))

    assert len(cut("one", 0.5)) == 8000
    np.testing.assert_array_equal(cut("one", 0.5), cut("one", 0.5))
    assert cut("one", 0.5)[0] != cut("two", 0.5)[0]
    assert len(cut("one", 5.0)) == 32_000
