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
from slimvox.exporters.calibration import CLIPS, calibration_clips
from slimvox.exporters.reference import Reference
from slimvox.exporters.signature import Signature
from slimvox.exporters.staging import move_into_place

REFERENCE = Reference(encoder=odd_encoder(), head=None, signature=Signature(layers="all", mask=False))


def test_the_embedded_speech_by_default_silence_left_out(tmp_path: Path) -> None:
    clips = calibration_clips((), REFERENCE)
    assert len(clips) == CLIPS and all(np.abs(clip).max() > 0.01 for clip in clips)
    noise = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    soundfile.write(tmp_path / "noise.wav", noise, 16_000)
    soundfile.write(tmp_path / "silence.wav", 0 * noise, 16_000)
    (tmp_path / "broken.wav").write_bytes(b"no audio")
    assert len(calibration_clips([str(tmp_path)], REFERENCE)) == 1
    with pytest.raises(SlimvoxError, match="is not silent: give it speech"):
        calibration_clips([str(tmp_path / "silence.wav")], REFERENCE)


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
