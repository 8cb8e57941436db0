"""Audio sources that the user names, and the files found in them."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest

from slimvox.audio import AudioSource, av_file, find_audio, source_name
from slimvox.util.errors import SlimvoxError


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def names(sources: list[AudioSource], folder: Path) -> list[str]:
    return [os.path.relpath(source.path, folder) for source in sources]


def test_folder_is_searched_in_a_fixed_order(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "b.WAV",
        "a.flac",
        "c/d.mp3",
        "c/e.opus",
        "notes.md",
        ".hidden.wav",
        ".git/x.wav",
        "manifest.tsv",
    )
    assert names(find_audio([tmp_path]), tmp_path) == ["a.flac", "b.WAV", "c/d.mp3", "c/e.opus"]


def test_folder_with_a_loop_of_links_ends(tmp_path: Path) -> None:
    touch(tmp_path, "a/x.wav")
    (tmp_path / "a" / "again").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "b").symlink_to(tmp_path / "a", target_is_directory=True)
    assert names(find_audio([tmp_path]), tmp_path) == ["a/x.wav"]


def test_what_is_in_a_folder_and_is_not_decoded_is_listed_for_the_scan_to_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(av_file, "find_spec", lambda _: None)
    touch(tmp_path, "a.wav", "a.m4a", "b.WMA", "notes.txt")
    os.mkfifo(tmp_path / "b.wav")
    assert names(find_audio([tmp_path]), tmp_path) == ["a.m4a", "a.wav", "b.WMA", "b.wav"]
    (tmp_path / "a.wav").unlink()
    (tmp_path / "b.wav").unlink()
    with pytest.raises(
        SlimvoxError, match=r"holds no audio: .*, but 2 such as `.*a\.m4a` that is not decoded\."
    ):
        find_audio([tmp_path])


def test_a_folder_says_what_it_leaves_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "a.wav", "b/b.flac", "a.txt", "b/b.TXT", "b/.x.wav", "README", "x.parquet", "x.tar")
    with caplog.at_level(logging.INFO, logger="slimvox.audio"):
        assert len(find_audio([tmp_path])) == 2
    assert (
        "2 files of audio; left out: 2 .txt, 1 without a suffix, 1 .parquet, 1 .tar, 1 hidden." in caplog.text
    )


def test_same_file_counts_once(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav", "b.wav")
    (tmp_path / "list.txt").write_text("b.wav\n./b.wav\n")
    found = find_audio([tmp_path / "b.wav", tmp_path, tmp_path / "list.txt"])
    assert names(found, tmp_path) == ["b.wav", "a.wav"]


def test_one_path_is_as_good_as_a_list_of_one(tmp_path: Path) -> None:
    touch(tmp_path, "a.wav")
    assert find_audio(str(tmp_path)) == find_audio([tmp_path])


def test_list_is_relative_to_its_folder(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.wav"
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "a.lst").write_text(f"# comment\n\nsub/x y.wav\r\n{elsewhere}\nmissing.wav\n")
    found = find_audio([tmp_path / "lists" / "a.lst"])
    assert names(found, tmp_path) == ["lists/sub/x y.wav", "elsewhere.wav", "lists/missing.wav"]


@pytest.mark.parametrize("column", ["path", "file", "audio", "audio_filepath", "filename", "Path"])
def test_tables(tmp_path: Path, column: str) -> None:
    (tmp_path / "m.tsv").write_text(
        f'text\t{column}\tduration\tstart\n"lone quote\ta.wav\t2.5\t1\nx\tb/c.wav\t\t\n'
    )
    (tmp_path / "m.csv").write_text(
        f'text,{column},seconds,offset\n"two\nlines, yes",a.wav,2.5,1\nx,b/c.wav,,\n'
    )
    wanted = [
        AudioSource(path=tmp_path / "a.wav", offset_seconds=1.0, seconds=2.5),
        AudioSource(path=tmp_path / "b/c.wav"),
    ]
    assert find_audio([tmp_path / "m.tsv"]) == wanted
    assert find_audio([tmp_path / "m.csv"]) == wanted


def test_json_lines_with_segments_of_one_file(tmp_path: Path) -> None:
    rows = [
        {"audio_filepath": "a.wav", "duration": 2, "offset": start, "text": "x\u2028y"} for start in (0, 2.0)
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n")
    (tmp_path / "m.json").write_text(json.dumps(rows))
    wanted = [AudioSource(path=tmp_path / "a.wav", offset_seconds=start, seconds=2.0) for start in (0.0, 2.0)]
    assert find_audio([tmp_path / "m.jsonl"]) == wanted
    assert find_audio([tmp_path / "m.json"]) == wanted


def test_ids_name_files_beside_the_manifest(tmp_path: Path) -> None:
    touch(tmp_path, "u1.opus", "speaker.2/u2.v1.flac", "speaker.2/u2.txt", "full.wav", "12.WAV")
    (tmp_path / "manifest.tsv").write_text(
        "id\tseconds\nu1\t3\nspeaker.2/u2.v1\t\nfull.wav\t\n12\t\ngone\t\n"
    )
    found = find_audio([tmp_path / "manifest.tsv"])
    assert names(found, tmp_path) == ["u1.opus", "speaker.2/u2.v1.flac", "full.wav", "12.WAV", "gone"]
    assert found[0].seconds == 3.0


def test_manifest_with_its_folder_on_the_first_line(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "train.tsv").write_text(f"{tmp_path / 'corpus'}\na.flac\t16000\nb/c.flac\t99\n")
    assert names(find_audio([tmp_path / "train.tsv"]), tmp_path) == ["corpus/a.flac", "corpus/b/c.flac"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "x.tsv",
            "text\tspeaker\nhello\tme\n",
            "must have a column that names the audio file .* has text, speaker",
        ),
        ("x.tsv", "", "must have a column"),
        ("x.csv", "path\n", "has no rows"),
        ("x.csv", "path,duration\na.wav,soon\n", "line 2 .* must be a number of seconds.* 'soon'"),
        ("x.csv", "path,offset\na.wav,-1\n", "must be a number of seconds.* '-1'"),
        ("x.csv", "path,id\n,\n", "line 2 .* must not be empty"),
        ("x.jsonl", '{"path": "a.wav"}\n{"path"\n', "must hold a JSON object on each line"),
        ("x.jsonl", "[1]", "Item 1 .* must be a JSON object, but is 1"),
        ("x.jsonl", '{"path": 3}', "`path` in line 1 .* must be the path of a file, but is 3"),
        ("x.jsonl", '{"sound": "a"}', "but has sound instead"),
        ("x.txt", "\n# nothing\n", "names no audio"),
        ("x.txt", b"\xff\xfe\x00", "must be UTF-8 text"),
        ("x.pdf", "", "but ends in '.pdf' instead"),
    ],
)
def test_what_cannot_be_understood(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SlimvoxError, match=f"(?s){message}"):
        find_audio([tmp_path / name])


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(SlimvoxError, match="does not exist"):
        find_audio([tmp_path / "nowhere"])
    with pytest.raises(SlimvoxError, match=r"holds no audio.*\.wav, \.flac"):
        find_audio([tmp_path])
    with pytest.raises(SlimvoxError, match="no audio given"):
        find_audio([])


def test_the_name_of_a_source_can_be_written(tmp_path: Path) -> None:
    name = source_name(tmp_path / os.fsdecode(b"caf\xe9 \xff"))
    assert name.encode() == "caf\N{REPLACEMENT CHARACTER} \N{REPLACEMENT CHARACTER}".encode()
    assert source_name("hf:user/caf\N{LATIN SMALL LETTER E WITH ACUTE}") == "hf:user/caf\xe9"
