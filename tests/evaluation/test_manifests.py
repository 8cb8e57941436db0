from __future__ import annotations

import gzip
import itertools
import random
from pathlib import Path

import numpy as np
import pytest
import soundfile

from evaluation_tables import write_table
from slimvox.audio import UnreadableAudioError
from slimvox.evaluation.examples import Clip, Recording, Segment, Turn, VerificationSet
from slimvox.evaluation.feature_cache import FeatureCache
from slimvox.evaluation.manifests import _Pairs, parse_slots
from slimvox.evaluation.tasks import task
from slimvox.evaluation.upstreams import FilterBankUpstream
from slimvox.evaluation.waveforms import Excerpt, read_waveform
from slimvox.util.errors import SlimvoxError


def table(path: Path, text: str) -> Path:
    path.write_text(text.replace(" | ", "\t"), encoding="utf-8")
    return path


def test_a_table_of_labels(tmp_path: Path) -> None:
    file = table(
        tmp_path / "t.tsv", 'path | split | label\na.wav | train | yes\nb.wav | dev | "no"\nc.wav | test | \n'
    )
    found = task("ks").read_manifest(file, Path("/data"))
    assert [(each.labels, each.split) for each in found.examples] == [(("yes",), "train"), (('"no"',), "dev")]
    assert found.examples[0].recording.clips[0].path == Path("/data/a.wav")
    assert found.skipped == {"no label": 1}


def test_commas_and_several_slots(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text('id,path,split,label_size,label_drink\none,a.wav,train,,"tea, green"\n')
    found = task("ic").read_manifest(file, Path("/data"))
    assert found.label_names == ("size", "drink")
    assert found.examples[0].labels == ("", "tea, green")
    assert found.examples[0].recording.id == "one"


def test_clips_on_a_time_line(tmp_path: Path) -> None:
    file = table(
        tmp_path / "t.tsv",
        "id | path | split | turns\nm | a b.wav*0.5 + x/c.wav@1.25*2 | test | A 0-1.5; B 1.25-2\n",
    )
    found = task("sd").read_manifest(file, Path("/d"))
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
    found = task("asv").read_manifest(file, Path("/d"))
    assert isinstance(found, VerificationSet)
    for split in ("dev", "test"):
        trials = [trial for trial in found.trials if trial.split == split]
        assert sum(trial.same for trial in trials) == 9 and len(trials) == 18
        assert all(trial.first.startswith(split) for trial in trials)
    assert found.trials == task("asv").read_manifest(file, Path("/d")).trials  # type: ignore[attr-defined]


def test_matches_of_queries_and_documents(tmp_path: Path) -> None:
    file = table(
        tmp_path / "t.tsv",
        "id | path | split | role | label\nq | q.wav | dev | query | go\nd | d.wav | dev | document | stop|go\n"
        "e | e.wav | dev | document | gone\n",
    )
    search = task("qbe").read_manifest(file, Path("/d")).examples[0]
    assert search.matches == {("q", "d")} and len(search.documents) == 2


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("ks", "path | split\na | train\n", "no column 'label'"),
        ("ks", "sound | label\na | b\n", "no column 'path'"),
        ("ks", "file | label\na | b\n", "no column 'split'"),
        ("pr", "path | split\na | train\n", "no column 'text'"),
        (
            "ks",
            "path | split | label\na | valid | b\n",
            "line 2 .* must be train, dev or test, or the number of a fold, but is 'valid'",
        ),
        ("ks", "path | split | label\n | test | b\n", "line 2 .*`path` is empty"),
        (
            "ks",
            "path | split | label | start_seconds\na | test | b | x\n",
            "`start_seconds` in line 2 .* must be a number",
        ),
        ("sd", "path | split | turns\na | test | A 2-1\n", "a turn must be"),
        ("qbe", "path | split | role | label\na | test | doc | x\n", "`role` must be query or document"),
    ],
)
def test_what_is_wrong_is_said_with_the_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(SlimvoxError, match=message):
        task(name).read_manifest(table(tmp_path / "t.tsv", text), tmp_path)


def test_no_manifest_no_task(tmp_path: Path) -> None:
    with pytest.raises(SlimvoxError, match="there is no manifest"):
        task("ks").read_manifest(tmp_path / "none.tsv", tmp_path)
    with pytest.raises(SlimvoxError, match=r"`task` must be one of .* but is .xx. instead"):
        task("xx").read_manifest(tmp_path / "none.tsv", tmp_path)


def test_a_column_gives_recordings_the_seeds_of_their_acoustic_channels(tmp_path: Path) -> None:
    rows = [
        {"path": "a.wav", "split": "train", "label": "x", "channel_seed": "17"},
        {"path": "b.wav", "split": "train", "label": "x", "channel_seed": ""},
    ]
    found = task("sid").read_manifest(write_table(tmp_path / "t.tsv", rows), tmp_path)
    assert [example.recording.channel for example in found.examples] == [17, None]
    rows[1]["channel_seed"] = "-1"
    with pytest.raises(SlimvoxError, match=r"line 3 .*`channel_seed` must be a whole number, but is '-1'"):
        task("sid").read_manifest(write_table(tmp_path / "t.tsv", rows), tmp_path)


def test_a_channel_is_one_of_the_file_and_no_seed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    wave = rng.normal(0, 0.1, (16_000, 2)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", wave, 16_000, subtype="FLOAT")
    file = table(
        tmp_path / "t.tsv",
        "id | path | split | label | channel\na | a.wav | train | x | 1\nb | a.wav | dev | x | \n"
        "c | a.wav | test | x | 2\n",
    )
    found = [each.recording for each in task("ks").read_manifest(file, tmp_path).examples]
    assert [recording.channel for recording in found] == [None] * 3
    np.testing.assert_array_equal(read_waveform(Excerpt(recording=found[0])), wave[:, 1])
    np.testing.assert_allclose(read_waveform(Excerpt(recording=found[1])), wave.mean(1), atol=1e-6)
    with pytest.raises(UnreadableAudioError, match="no channel 2"):
        read_waveform(Excerpt(recording=found[2]))
    cache = FeatureCache(upstream=FilterBankUpstream(), directory=tmp_path / "cache")
    means = [
        cache.features(
            [Excerpt(recording=Recording(id="a", clips=recording.clips))], task="ks", pooling="mean"
        )
        for recording in found[:2]
    ]
    assert not means[0].get("a").allclose(means[1].get("a"), atol=1e-3)
    # A table written for seeds in that column is told so.
    text = "path | split | label | channel\na.wav | train | x | 1988601454\n"
    with pytest.raises(SlimvoxError, match=r"`channel` in line 2 .* must be the number of one channel"):
        task("ks").read_manifest(table(tmp_path / "t.tsv", text), tmp_path)


@pytest.mark.parametrize(
    ("columns", "values"),
    [
        ("start_seconds | end_seconds", "0.1 | 0.4"),
        ("start | end", "0.1 | 0.4"),
        ("start | stop", "0.1 | 0.4"),
        ("offset | duration", "0.1 | 0.3"),
        ("start_ms | end_ms", "100 | 400"),
    ],
)
def test_a_stretch_may_be_given_as_in_any_table_of_audio(tmp_path: Path, columns: str, values: str) -> None:
    wave = np.random.default_rng(0).normal(0, 0.1, 16_000).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", wave, 16_000, subtype="FLOAT")
    file = table(tmp_path / "t.tsv", f"File | split | label | {columns}\na.wav | train | x | {values}\n")
    (example,) = task("ks").read_manifest(file, tmp_path).examples
    np.testing.assert_array_equal(read_waveform(Excerpt(recording=example.recording)), wave[1_600:6_400])


def test_ends_are_as_written_so_that_results_of_the_same_data_compare(tmp_path: Path) -> None:
    file = table(
        tmp_path / "t.tsv", "path | split | label | start_seconds | end_seconds\na | dev | x | 0.45 | 3.07\n"
    )
    (example,) = task("ks").read_manifest(file, tmp_path).examples
    assert example.recording.clips == (Clip(path=tmp_path / "a", start_seconds=0.45, end_seconds=3.07),)


def test_a_stretch_that_ends_far_behind_its_file_is_not_the_rest_of_it(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.full(32_000, 0.1), 16_000)
    text = "id | path | split | label | start | end\na | a.wav | dev | x | 0 | 2.5\nb | a.wav | dev | x | 0 | 16000\n"
    good, bad = (
        each.recording
        for each in task("ks").read_manifest(table(tmp_path / "t.tsv", text), tmp_path).examples
    )
    assert len(read_waveform(Excerpt(recording=good))) == 32_000
    with pytest.raises(UnreadableAudioError, match=r"it ends after 2\.00 s of the 16000\.00 s"):
        read_waveform(Excerpt(recording=bad))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'path,split,label\na.wav,train,"x\nb.wav,train,y\nc.wav,dev,z\n',
            "Line 2 .* quotation mark that is not closed",
        ),
        ("path,split,label\na.wav,train,x, y\n", "Line 2 .* must have 3 values, .* but has 4"),
        ("path,Path,split,label\na.wav,b.wav,train,x\n", "the column 'path' occurs twice"),
        (
            "path,split,label,start_sample\na.wav,train,x,16000\n",
            "`start_sample` in line 2 .* counts samples",
        ),
        (
            "path,split,label,start,stop,duration\na.wav,train,x,4800,9600,8.1\n",
            "contradict each other in line 2",
        ),
        ("path,split,turns\na.wav,train,A 0-1..2\n", "line 2 .*: `turns` must be a number, but is '1..2'"),
        ("path,split,turns\na.wav@999999999,train,A 0-1\n", "`path` must be at most"),
    ],
)
def test_rows_that_are_not_understood_are_errors(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(SlimvoxError, match=message):
        task("sd" if "turns" in text else "ks").read_manifest(tmp_path / "t.csv", tmp_path)


@pytest.mark.parametrize("count", [0, 1, 2, 5, 23])
def test_pairs_by_number_are_those_of_the_whole_list(count: int) -> None:
    labels = [random.Random(number).choice("abc") for number in range(count)]
    pairs = list(itertools.combinations(range(count), 2))
    found = _Pairs(labels)
    assert found.same == [(a, b) for a, b in pairs if labels[a] == labels[b]]
    expected = [(a, b) for a, b in pairs if labels[a] != labels[b]]
    assert [found.of_different(number) for number in range(found.different)] == expected


def test_stretches_of_one_file_have_ids_of_their_own(tmp_path: Path) -> None:
    text = "path | split | role | label | start_seconds | end_seconds\n"
    text += "q.wav | dev | query | go |  | \n"
    text += "d.wav | dev | document | go | 0 | 1.5\nd.wav | dev | document | no | 1.5 | \n"
    text += "d.wav | test | document | no | 1.5 | \n"
    first, second = task("qbe").read_manifest(table(tmp_path / "t.tsv", text), tmp_path).examples
    assert [each.id for each in first.documents] == ["d.wav [0.0-1.5]", "d.wav [1.5-]"]
    assert first.matches == {("q.wav", "d.wav [0.0-1.5]")}
    assert second.documents == first.documents[1:]
    text = "path | split | label | channel\na.wav | train | x | 0\na.wav | train | y | 1\n"
    examples = task("ks").read_manifest(table(tmp_path / "u.tsv", text), tmp_path).examples
    assert [each.recording.id for each in examples] == ["a.wav [channel 0]", "a.wav [channel 1]"]


@pytest.mark.parametrize("name", ["qbe", "asv", "ks"])
def test_two_recordings_of_one_id_are_an_error(tmp_path: Path, name: str) -> None:
    text = "id | path | split | role | label\nx | a.wav | dev | document | a\nx | b.wav | dev | query | b\n"
    with pytest.raises(SlimvoxError, match=r"line 3 .*: the recording of line 2 has the same id, 'x'"):
        task(name).read_manifest(table(tmp_path / "t.tsv", text), tmp_path)


def test_a_packed_table_of_commas_is_read(tmp_path: Path) -> None:
    file = tmp_path / "t.csv.gz"
    file.write_bytes(gzip.compress(b"path,split,label\na.wav,train,x\n"))
    assert len(task("ks").read_manifest(file, tmp_path).examples) == 1
