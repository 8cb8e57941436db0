"""Names of the files that `slimvox encode` writes."""

from __future__ import annotations

import os
from pathlib import Path

from slimvox.audio import AudioSource
from slimvox.encoding.output_names import output_names


def test_names_follow_the_folders_and_keep_a_suffix_where_they_meet(tmp_path: Path) -> None:
    files = ["x/a.wav", "x/a.flac", "x/a.wav.ogg", "x/b.wav", "y/a.wav"]
    found = [AudioSource(path=tmp_path / name) for name in files]
    names = [path.as_posix() for path in output_names(found, [path.path for path in found], suffix=".npz")]
    assert names == ["x/a.wav.npz", "x/a.flac.npz", "x/a.wav.ogg.npz", "x/b.npz", "y/a.npz"]
    # A folder that was named counts as it is; a single file lies next to nothing.
    (tmp_path / "x").mkdir()
    assert output_names(found[3:4], [tmp_path], suffix=".npz") == [Path("x/b.npz")]
    assert output_names(found[3:4], [found[3].path], suffix=".npz") == [Path("b.npz")]
    parts = [AudioSource(path=tmp_path / "c.wav", offset_seconds=s, seconds=2.5) for s in (0.0, 1.5)]
    assert [p.name for p in output_names(parts, ["list.csv"], suffix=".npz")] == [
        "c_0.0-2.5.npz",
        "c_1.5-4.0.npz",
    ]


def test_names_tell_stretches_and_channels_apart_and_fit_a_file_system(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 251 + ".wav")
    sources = [
        *(AudioSource(path=tmp_path / "a.wav", seconds=1.0, channel=channel) for channel in (None, 0, 1)),
        AudioSource(path=tmp_path / "a.wav"),
        AudioSource(path=tmp_path / "a.m4a"),
        AudioSource(path=long),
        AudioSource(path=long, offset_seconds=1.0, seconds=2.0),
        AudioSource(path=tmp_path / ("\N{SNOWMAN}" * 83 + ".wav")),
        AudioSource(path=tmp_path / os.fsdecode(b"\xff" * 251 + b".wav")),
    ]
    names = [str(name) for name in output_names(sources, [tmp_path], suffix=".safetensors")]
    assert names[:5] == [
        "a_0.0-1.0.safetensors",
        "a_0.0-1.0_channel0.safetensors",
        "a_0.0-1.0_channel1.safetensors",
        "a.safetensors",
        "a.m4a.safetensors",
    ]
    assert len(set(names)) == len(names)
    assert all(len(os.fsencode(name)) <= 255 and name.endswith(".safetensors") for name in names)
    for name in names:
        (tmp_path / name).write_bytes(b"")
    # Names that fit are as they always were.
    assert output_names([AudioSource(path=long)], [tmp_path], suffix=".npz") == [Path("x" * 251 + ".npz")]
