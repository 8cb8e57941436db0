"""Tables of audio in the formats of other programs: their files, stretches and channels, and rows that are not read."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from slimvox.audio import AudioSource, find_audio
from slimvox.util.errors import SlimvoxError


def table(path: Path, *rows: str) -> Path:
    path.write_text("\n".join(rows).replace(" | ", "\t") + "\n", encoding="utf-8")
    return path


def json_lines(path: Path, *rows: object) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    return path


def test_rows_with_one_file_and_start_but_another_duration_or_channel_all_count(tmp_path: Path) -> None:
    rows = ["a.wav,0,1,", "a.wav,0,2,", "a.wav,0,,0", "a.wav,0,,1", "a.wav,0,,"]
    found = find_audio([table(tmp_path / "m.csv", "path,start,duration,channel", *rows)])
    assert [(each.seconds, each.channel) for each in found] == [
        (1, None),
        (2, None),
        (None, 0),
        (None, 1),
        (None, None),
    ]


@pytest.mark.parametrize(
    "rows",
    [
        ('a.wav,"hello', "b.wav,x", "c.wav,y", "d.wav,z"),
        ('a.wav,"hello', "b.wav,x", 'c.wav,"bye', "d.wav,z"),
        ('a.wav,"hello', "b.wav,x", 'c.wav,say "', "d.wav,z"),
        ("a.wav,x", 'b.wav,"hello', 'c.wav,say "'),
        ('a,"hello', "b,x", "c,y"),
        ('a,"hello', "b,x", 'c,"bye'),
    ],
)
def test_a_lone_quotation_mark_swallows_no_rows(tmp_path: Path, rows: tuple[str, ...]) -> None:
    with pytest.raises(SlimvoxError, match=r"Line [23] of .*m\.csv` has a quotation mark that is not closed"):
        find_audio([table(tmp_path / "m.csv", "path,text", *rows)])


@pytest.mark.parametrize(
    "text",
    ['"one\ntwo, three"', '"one\ntwo\nthree"', '"say ""hello"", and go"', '5" pipe'],
)
@pytest.mark.parametrize("is_first", [False, True])
def test_quoted_text_is_fine(tmp_path: Path, text: str, is_first: bool) -> None:
    columns, row = ("text,path", f"{text},a.wav") if is_first else ("path,text", f"a.wav,{text}")
    found = find_audio([table(tmp_path / "m.csv", columns, row, row.replace("a.wav", "b.wav"))])
    assert [each.path.name for each in found] == ["a.wav", "b.wav"]


def test_a_row_of_more_values_than_columns_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SlimvoxError, match=r"Line 3 of .* must have 2 values, .* but has 3"):
        find_audio([table(tmp_path / "m.csv", "text,path", "x,a.wav", "hello, world,b.wav")])
    with pytest.raises(SlimvoxError, match=r"must have each column once, but has `path` twice"):
        find_audio([table(tmp_path / "m.csv", "path,Path", "a.wav,b.wav")])
    assert len(find_audio([table(tmp_path / "m.csv", "path,text,", "a.wav,x,,", "b.wav", "")])) == 2


def cut(path: str = "a.flac", **changes: Any) -> dict[str, Any]:
    recording = {
        "id": "rec",
        "sources": [{"type": "file", "channels": [0], "source": path}],
        "sampling_rate": 16_000,
        "num_samples": 480_000,
        "duration": 30.0,
        "channel_ids": [0],
    }
    supervisions = [
        {"id": "s", "recording_id": "rec", "start": 0.0, "duration": 4.5, "channel": 0, "text": "x"}
    ]
    return {
        "id": "cut-1",
        "start": 10.5,
        "duration": 4.5,
        "channel": 0,
        "supervisions": supervisions,
        "recording": recording,
        "type": "MonoCut",
        **changes,
    }


def two_channels(**changes: Any) -> dict[str, Any]:
    row = cut(**changes)
    row["recording"].update(
        channel_ids=[0, 1], sources=[{"type": "file", "channels": [0, 1], "source": "a.flac"}]
    )
    return row


def test_cuts_and_recordings_of_lhotse(tmp_path: Path) -> None:
    rows = [cut(), two_channels(channel=1), two_channels(channel=[0, 1], type="MultiCut"), cut()["recording"]]
    wanted = [
        AudioSource(path=tmp_path / "a.flac", offset_seconds=10.5, seconds=4.5),
        AudioSource(path=tmp_path / "a.flac", offset_seconds=10.5, seconds=4.5, channel=1),
        AudioSource(path=tmp_path / "a.flac"),
    ]
    path = json_lines(tmp_path / "cuts.jsonl", *rows)
    # The cut of one channel of one, and that of both of two, are the same audio of the same name.
    assert find_audio([path]) == wanted
    with gzip.open(tmp_path / "cuts.jsonl.gz", "wb") as file:
        file.write(path.read_bytes())
    assert find_audio([tmp_path / "cuts.jsonl.gz"]) == wanted


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": "s-1", "recording_id": "rec", "start": 0, "duration": 1}, "names a recording but no file"),
        (cut(recording=None), "names a recording but no file"),
        (cut(type="MixedCut"), "The MixedCut of lhotse in line 1 .* is not audio of one file"),
        (
            cut(recording={**cut()["recording"], "transforms": [{"name": "Speed"}]}),
            "has `transforms` of lhotse",
        ),
        (
            cut(recording={"id": "r", "sources": [{"type": "command", "source": "cat a.wav"}]}),
            "must have one source of type `file`, but has .*command",
        ),
        (
            two_channels(channel=[1, 3], type="MultiCut"),
            "`channel` in line 1 .* must be the number of one channel",
        ),
    ],
)
def test_what_is_not_read_of_lhotse_is_said(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(SlimvoxError, match=message):
        find_audio([json_lines(tmp_path / "cuts.jsonl", row)])


def test_json_and_csv_of_speechbrain(tmp_path: Path) -> None:
    rows = {"u1": {"wav": "a.wav", "length": 3.2, "spk_id": "x"}, "u2": {"wav": "b/c.wav", "length": 2.0}}
    (tmp_path / "m.json").write_text(json.dumps(rows, indent=2))
    assert [each.path for each in find_audio([tmp_path / "m.json"])] == [
        tmp_path / "a.wav",
        tmp_path / "b/c.wav",
    ]
    table(tmp_path / "m.csv", "ID,duration,wav,wav_format,wav_opts,spk_id", "u1,3.2,a.wav,wav,,x")
    assert find_audio([tmp_path / "m.csv"]) == [AudioSource(path=tmp_path / "a.wav", seconds=3.2)]
    for placeholder in ("{data_root}", "$data_root"):
        rows["u2"]["wav"] = f"{placeholder}/b.wav"
        (tmp_path / "m.json").write_text(json.dumps(rows))
        with pytest.raises(SlimvoxError, match=r"in entry 'u2' of .* begins with the placeholder"):
            find_audio([tmp_path / "m.json"])
    rows["u2"]["wav"] = {"file": "b.wav", "start": 0, "stop": 16_000}  # type: ignore[assignment]
    (tmp_path / "m.json").write_text(json.dumps(rows))
    with pytest.raises(SlimvoxError, match=r"`wav` in entry 'u2' .* must be the path of a file"):
        find_audio([tmp_path / "m.json"])


def test_fairseq_manifest_whose_folder_is_elsewhere(tmp_path: Path) -> None:
    table(tmp_path / "train.tsv", "/data/corpus", "a.flac | 16000", "b.flac | 99")
    with pytest.raises(
        SlimvoxError, match="The folder `/data/corpus` on the first line of the fairseq manifest"
    ):
        find_audio([tmp_path / "train.tsv"])
    # The table of its translation task has a header.
    table(tmp_path / "st.tsv", "id | audio | n_frames | tgt_text", "u | a.wav | 320 | hello")
    assert find_audio([tmp_path / "st.tsv"]) == [AudioSource(path=tmp_path / "a.wav")]


def test_tables_of_kaldi(tmp_path: Path) -> None:
    scp = table(tmp_path / "wav.scp", "rec1 a b.wav", "rec2 /data/c.wav")
    assert [each.path for each in find_audio([scp])] == [tmp_path / "a b.wav", Path("/data/c.wav")]
    segments = table(tmp_path / "segments", "u1 rec1 1.5 3.0", "u2 rec1 3.0 -1", "u3 rec2 0 2 1")
    assert find_audio([segments]) == [
        AudioSource(path=tmp_path / "a b.wav", offset_seconds=1.5, seconds=1.5),
        AudioSource(path=tmp_path / "a b.wav", offset_seconds=3.0),
        AudioSource(path=Path("/data/c.wav"), seconds=2.0, channel=1),
    ]


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("wav.scp", "rec1 sph2pipe a.sph |", "Line 2 of .* is a command, which is not run"),
        ("wav.scp", "rec1 wavs.ark:123", "Line 2 of .* names a place in an archive"),
        ("wav.scp", "rec1", "Line 2 of .* has no path"),
        ("wav.scp", "rec0 b.wav", "Line 2 of .* 'rec0' for the second time"),
        ("segments", "u2 rec9 0 1", "Line 2 of .* names the recording 'rec9'"),
        ("segments", "u2 rec0 0", "Line 2 of .* must be `SEGMENT RECORDING START END`"),
        ("segments", "u2 rec0 2 1", "`end` in Line 2 of .* must not be before"),
    ],
)
def test_lines_of_kaldi_that_are_not_read(tmp_path: Path, name: str, line: str, message: str) -> None:
    table(tmp_path / "wav.scp", "rec0 a.wav")
    first = "rec0 a.wav" if name == "wav.scp" else "u1 rec0 0 1"
    with pytest.raises(SlimvoxError, match=message):
        find_audio([table(tmp_path / name, first, line)])


def test_names_of_hugging_face_and_nemo(tmp_path: Path) -> None:
    table(tmp_path / "metadata.csv", "file_name,transcription", "a.wav,hello")
    assert find_audio([tmp_path / "metadata.csv"]) == [AudioSource(path=tmp_path / "a.wav")]
    nemo = {"audio_filepath": "a.wav", "offset": 10.5, "duration": 4.5, "text": "x", "channel_selector": 1}
    assert find_audio([json_lines(tmp_path / "m.json", nemo)]) == [
        AudioSource(path=tmp_path / "a.wav", offset_seconds=10.5, seconds=4.5, channel=1)
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 100_000, "is nested too deeply"),
        ('{"path": ' + "[" * 100_000, "is nested too deeply"),
        (
            '{"path": "a.wav", "duration": ' + "9" * 5_000 + "}",
            "is not valid JSON|must be a number of seconds",
        ),
        ('{"path": "a.wav", "duration": 1e308}', "would be"),
        ('{"path": "a.wav", "duration": Infinity}', "must be a number of seconds"),
        ('"a.wav"', "Line 1 .* must be a JSON object"),
        ('{"path": "a.wav", "PATH": "b.wav"}', "must have each column once"),
    ],
)
def test_json_of_an_adversary(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "m.jsonl").write_text(content)
    with pytest.raises(SlimvoxError, match=message):
        find_audio([tmp_path / "m.jsonl"])


def test_damaged_archive_and_pipe(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl.gz").write_bytes(b"no archive")
    with pytest.raises(SlimvoxError, match=r"m\.jsonl\.gz` cannot be read: "):
        find_audio([tmp_path / "m.jsonl.gz"])
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b"x" * 1000)[:20])
    with pytest.raises(SlimvoxError, match=r"cut\.jsonl\.gz` cannot be read: "):
        find_audio([tmp_path / "cut.jsonl.gz"])


@pytest.mark.parametrize("audio", ["", "  ", ["a.wav", ""]])
def test_an_empty_name_is_not_the_current_folder(audio: str | list[str]) -> None:
    with pytest.raises(SlimvoxError, match=r"must not be empty: write `.` for the current folder"):
        find_audio(audio)
