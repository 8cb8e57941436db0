from __future__ import annotations

from pathlib import Path

import pytest

from evaluation_tables import write_table
from slimvox.errors import SlimvoxError
from slimvox.evaluation.examples import Clip, Segment, Turn, VerificationSet
from slimvox.evaluation.manifests import parse_slots, read_task_manifest


def table(path: Path, text: str) -> Path:
    path.write_text(text.replace(" | ", "\t"), encoding="utf-8")
    return path


def test_a_table_of_labels(tmp_path: Path) -> None:
    file = table(
        tmp_path / "t.tsv", 'path | split | label\na.wav | train | yes\nb.wav | dev | "no"\nc.wav | test | \n'
    )
    found = read_task_manifest("ks", file, Path("/data"))
    assert [(each.labels, each.split) for each in found.examples] == [(("yes",), "train"), (('"no"',), "dev")]
    assert found.examples[0].recording.clips[0].path == Path("/data/a.wav")
    assert found.skipped == {"no label": 1}


def test_commas_and_several_slots(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text('id,path,split,label_size,label_drink\none,a.wav,train,,"tea, green"\n')
    found = read_task_manifest("ic", file, Path("/data"))
    assert found.label_names == ("size", "drink")
    assert found.examples[0].labels == ("", "tea, green")
    assert found.examples[0].recording.id == "one"


def test_clips_on_a_time_line(tmp_path: Path) -> None:
    file = table(
        tmp_path / "t.tsv",
        "id | path | split | turns\nm | a b.wav*0.5 + x/c.wav@1.25*2 | test | A 0-1.5; B 1.25-2\n",
    )
    found = read_task_manifest("sd", file, Path("/d"))
    assert found.examples[0].recording.clips == (
        Clip(path=Path("/d/a b.wav"), gain=0.5),
        Clip(path=Path("/d/x/c.wav"), at_seconds=1.25, gain=2.0),
    )
    assert found.examples[0].turns[1] == Turn(speaker="B", start_seconds=1.25, end_seconds=2.0)


def test_slots_in_brackets() -> None:
    assert parse_slots("a [size: very  small] cup [drink: tea]", "here") == (
        Segment(text="a"),
        Segment(text="very small", slot="size"),
        Segment(text="cup"),
        Segment(text="tea", slot="drink"),
    )
    with pytest.raises(SlimvoxError, match=r"here: slots must be written"):
        parse_slots("a [size small]", "here")


def test_trials_are_all_same_pairs_and_as_many_others(tmp_path: Path) -> None:
    rows = [
        f"{split}{n}.wav | {split} | {split}{n // 3}" for split in ("train", "dev", "test") for n in range(9)
    ]
    file = table(tmp_path / "t.tsv", "path | split | label\n" + "\n".join(rows))
    found = read_task_manifest("asv", file, Path("/d"))
    assert isinstance(found, VerificationSet)
    for split in ("dev", "test"):
        trials = [trial for trial in found.trials if trial.split == split]
        assert sum(trial.same for trial in trials) == 9 and len(trials) == 18
        assert all(trial.first.startswith(split) for trial in trials)
    assert found.trials == read_task_manifest("asv", file, Path("/d")).trials  # type: ignore[attr-defined]


def test_matches_of_queries_and_documents(tmp_path: Path) -> None:
    file = table(
        tmp_path / "t.tsv",
        "id | path | split | role | label\nq | q.wav | dev | query | go\nd | d.wav | dev | document | stop|go\n"
        "e | e.wav | dev | document | gone\n",
    )
    search = read_task_manifest("qbe", file, Path("/d")).examples[0]
    assert search.matches == {("q", "d")} and len(search.documents) == 2


@pytest.mark.parametrize(
    ("task", "text", "message"),
    [
        ("ks", "path | split\na | train\n", "no column 'label'"),
        ("ks", "file | label\na | b\n", "no column 'path'"),
        ("pr", "path | split\na | train\n", "no column 'text'"),
        (
            "ks",
            "path | split | label\na | valid | b\n",
            "line 2 .* must be train, dev or test, but is 'valid'",
        ),
        ("ks", "path | split | label\n | test | b\n", "line 2 .*`path` is empty"),
        (
            "ks",
            "path | split | label | start_seconds\na | test | b | x\n",
            "`start_seconds` must be a number",
        ),
        ("sd", "path | split | turns\na | test | A 2-1\n", "a turn must be"),
        ("qbe", "path | split | role | label\na | test | doc | x\n", "`role` must be query or document"),
    ],
)
def test_what_is_wrong_is_said_with_the_line(tmp_path: Path, task: str, text: str, message: str) -> None:
    with pytest.raises(SlimvoxError, match=message):
        read_task_manifest(task, table(tmp_path / "t.tsv", text), tmp_path)


def test_no_manifest_no_task(tmp_path: Path) -> None:
    with pytest.raises(SlimvoxError, match="there is no manifest"):
        read_task_manifest("ks", tmp_path / "none.tsv", tmp_path)
    with pytest.raises(SlimvoxError, match="there is no task xx"):
        read_task_manifest("xx", tmp_path / "none.tsv", tmp_path)


def test_a_column_gives_recordings_their_channels(tmp_path: Path) -> None:
    rows = [
        {"path": "a.wav", "split": "train", "label": "x", "channel": "17"},
        {"path": "b.wav", "split": "train", "label": "x", "channel": ""},
    ]
    found = read_task_manifest("sid", write_table(tmp_path / "t.tsv", rows), tmp_path)
    assert [example.recording.channel for example in found.examples] == [17, None]
    rows[1]["channel"] = "-1"
    with pytest.raises(SlimvoxError, match=r"line 3 .*`channel` must be a whole number, but is '-1'"):
        read_task_manifest("sid", write_table(tmp_path / "t.tsv", rows), tmp_path)
