"""Calibration audio, and two files that come into being together."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from drawn import odd_encoder
from missing_packages import exports, hide_packages
from slimvox import SlimvoxError, export
from slimvox.checkpoint import write_slimvox_directory
from slimvox.evaluation.upstreams import load_upstream
from slimvox.exporters.calibration import ERROR_CLIPS, SCALE_CLIPS, Int8Speech
from slimvox.exporters.reference import Reference
from slimvox.exporters.signature import Signature
from slimvox.exporters.staging import move_into_place

REFERENCE = Reference(encoder=odd_encoder(), head=None, signature=Signature(layers="all", mask=False))


def noise_files(folder: Path, count: int) -> list[Path]:
    """Files of noise, each of another length."""
    files = []
    for number in range(count):
        noise = np.random.default_rng(number).normal(0, 0.1, 1_600 + number).astype(np.float32)
        files.append(folder / f"{number:02d}.wav")
        soundfile.write(files[-1], noise, 16_000)
    return files


def test_the_embedded_speech_by_default() -> None:
    speech = Int8Speech((), REFERENCE)
    assert (len(speech.scales), len(speech.error)) == (SCALE_CLIPS, ERROR_CLIPS)
    assert speech.error_source == "the embedded speech"
    for clip in (*speech.scales, *speech.error):
        assert np.abs(clip).max() > 0.01
    assert max(len(clip) for clip in speech.scales) == 500 * REFERENCE.encoder.anatomy.hop
    heard = {clip.tobytes() for clip in speech.scales}
    assert not any(clip.tobytes() in heard for clip in speech.error)


@pytest.mark.parametrize(
    ("count", "scales", "error"), [(1, 1, 0), (3, 3, 0), (4, 3, 1), (9, 7, 2), (70, 24, 8)]
)
def test_of_own_speech_every_fourth_clip_is_for_the_error(
    count: int, scales: int, error: int, tmp_path: Path
) -> None:
    noise_files(tmp_path, count)
    speech = Int8Speech([str(tmp_path)], REFERENCE)
    lengths = [len(clip) for clip in (*speech.scales, *(speech.error if error else ()))]
    assert len(speech.scales) == scales and len({*lengths}) == scales + error
    if error:
        assert len(speech.error) == error
        assert speech.error_source == f"{error} other clips of the calibration audio"
        assert max(lengths) - min(lengths) > 0.9 * (count - 1), "they are spread over the audio"
    else:
        assert speech.error_source == "the embedded speech" and len(speech.error) == ERROR_CLIPS


def test_silent_and_unreadable_clips_are_left_out(tmp_path: Path) -> None:
    noise_files(tmp_path, 1)
    soundfile.write(tmp_path / "silence.wav", np.zeros(16_000, dtype=np.float32), 16_000)
    soundfile.write(
        tmp_path / "short.wav", np.full(REFERENCE.shortest_samples - 1, 0.1, dtype=np.float32), 16_000
    )
    (tmp_path / "broken.wav").write_bytes(b"no audio")
    (clip,) = Int8Speech([str(tmp_path)], REFERENCE).scales
    assert len(clip) == 1_600
    with pytest.raises(SlimvoxError, match="is not silent: give it speech"):
        Int8Speech([str(tmp_path / "silence.wav")], REFERENCE)


@exports("torch-export")
def test_calibration_of_a_format_that_needs_none_is_refused(tmp_path: Path) -> None:
    write_slimvox_directory(odd_encoder(), tmp_path / "model", kept_indices={}, model_card="")
    with pytest.raises(SlimvoxError, match="for int8 of --format openvino only"):
        export(tmp_path / "model", format="torch-export", calibration=["a.wav"])


@pytest.mark.parametrize("failing", [1, 2, 3, 4, 0])
def test_both_files_are_replaced_or_none(
    failing: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    staging = tmp_path / "staging"
    staging.mkdir()
    both = [tmp_path / "encoder.bin", tmp_path / "encoder.xml"]
    for file in both:
        file.write_text("old")
        (staging / file.name).write_text("new")
    replace, moves = Path.replace, []

    def fails(self: Path, target: Path) -> Any:
        moves.append(target)
        if len(moves) == failing:
            assert len({file.read_text() for file in both if file.exists()}) < 2
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fails)
    with pytest.raises(KeyboardInterrupt) if failing else nullcontext():
        move_into_place(staging, both)
    assert [file.read_text() for file in both] == ["old" if failing else "new"] * 2
    assert len(moves) >= 4 or failing


def test_the_extra_is_named_where_openvino_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide_packages(monkeypatch, "openvino")
    with pytest.raises(SlimvoxError, match=r'OpenVINO needs openvino.*, which .*"slimvox\[openvino\]"$'):
        export("embedded", tmp_path / "encoder.xml", format="openvino")
    (tmp_path / "encoder.xml").write_text("")
    with pytest.raises(SlimvoxError, match=r'OpenVINO needs openvino, which .*"slimvox\[openvino\]"$'):
        load_upstream(tmp_path / "encoder.xml")
