"""A source of audio that is defined outside of the package."""

from __future__ import annotations

from pathlib import Path

import pytest

from audio.audio_files import tone, write
from extending.ctm_reader import register
from slimvox.audio import find_audio, index_audio
from slimvox.audio.find import READERS
from slimvox.util.errors import SlimvoxError


def test_a_reader_from_outside_is_read_and_named_in_errors(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", tone(4.0))
    (tmp_path / "words.ctm").write_text("a 1 0.50 0.25 hello\na 1 2.00 0.50 world\n")
    with pytest.raises(SlimvoxError, match=r"but ends in '\.ctm' instead"):
        find_audio([tmp_path / "words.ctm"])
    register()
    try:
        (clip,) = index_audio([tmp_path / "words.ctm"], min_seconds=1.0).clips
        assert (clip.path, clip.offset_seconds, clip.seconds) == (tmp_path / "a.wav", 0.5, 2.0)
        with pytest.raises(SlimvoxError, match=r"word times \(\.ctm\) or a data set"):
            find_audio([write(tmp_path / "x.wav", tone(1.0)).rename(tmp_path / "x.unknown")])
    finally:
        READERS.unregister("ctm")
