"""Hugging Face data sets as sources of audio."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import soundfile

import slimvox
from audio.audio_files import tone, write
from slimvox.audio import (
    AudioBatches,
    AudioSource,
    BatchPlan,
    find_audio,
    index_audio,
    iter_audio_blocks,
    read_audio,
    scan_audio,
    source_name,
)
from slimvox.util.errors import SlimvoxError
from tiny_runs import make_teacher

FORMATS = ("WAV", "FLAC", "OGG", "MP3")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "DOWNLOADED_DATASETS_PATH", tmp_path / "cache" / "downloads")


def encoded(seconds: float, *, format: str = "FLAC", rate_hz: int = 16_000, pitch_hz: float = 440.0) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, tone(seconds, rate_hz, pitch_hz=pitch_hz), rate_hz, format=format)
    return file.getvalue()


def table(
    cells: list[dict[str, Any] | None], column: str = "audio", *, marked: bool = True
) -> datasets.Dataset:
    """A data set of one column of audio and one of text."""
    rows = datasets.Dataset.from_dict({column: cells, "text": ["a word"] * len(cells)})
    return rows.cast_column(column, datasets.Audio()) if marked else rows


def speakers(count: int = 4) -> datasets.Dataset:
    """Recordings of one second and more, each a little longer than the one before and of another pitch."""
    return table(
        [
            {"bytes": encoded(1 + n / 10, format=FORMATS[n % 4], pitch_hz=200 + 50 * n), "path": f"spk/{n}.x"}
            for n in range(count)
        ]
    )


def names(found: list[AudioSource], folder: Path | None = None) -> list[str]:
    paths = [Path(source.path) for source in found]
    return [str(path if folder is None else path.relative_to(folder)) for path in paths]


@pytest.mark.parametrize("format", FORMATS)
def test_a_row_is_read_as_the_file_in_it_would_be(format: str, tmp_path: Path) -> None:
    content = encoded(1.5, format=format, rate_hz=22_050)
    (tmp_path / "a.x").write_bytes(content)
    (source,) = find_audio([table([{"bytes": content, "path": None}])])
    for part in ({}, {"offset_seconds": 0.25, "seconds": 0.5}):
        np.testing.assert_array_equal(read_audio(source.path, **part), read_audio(tmp_path / "a.x", **part))
    blocks = list(iter_audio_blocks(source.path, block_seconds=0.4))
    np.testing.assert_array_equal(np.concatenate(blocks), read_audio(tmp_path / "a.x"))


def test_every_form_of_a_data_set_has_the_same_audio(tmp_path: Path) -> None:
    whole = speakers()
    # As text: datasets 3.0 with fsspec 2024.2 takes no paths.
    whole.save_to_disk(str(tmp_path / "disk"))
    datasets.DatasetDict({"train": whole, "dev": whole.select([1])}).save_to_disk(str(tmp_path / "splits"))
    (tmp_path / "tables" / "data").mkdir(parents=True)
    for number in range(2):
        whole.shard(2, number, contiguous=True).to_parquet(
            tmp_path / "tables" / "data" / f"train-{number}.parquet"
        )

    files = ["0.x", "1.x", "2.x", "3.x"]
    assert names(find_audio([tmp_path / "disk"]), tmp_path / "disk") == files
    assert names(find_audio([tmp_path / "splits"]), tmp_path / "splits") == [
        *(f"train/{name}" for name in files),
        "dev/1.x",
    ]
    assert names(find_audio([tmp_path / "tables"]), tmp_path / "tables") == [
        f"train/{name}" for name in files
    ]
    one = tmp_path / "tables" / "data" / "train-1.parquet"
    assert names(find_audio([one]), one) == ["train/2.x", "train/3.x"]
    hub = f"hf:{tmp_path / 'tables'}"
    assert names(find_audio([hub]), Path(hub)) == [f"train/{name}" for name in files]
    chosen = f"{hub}:default:train[:2]"
    assert names(find_audio([chosen]), Path(chosen)) == [f"train[:2]/{name}" for name in files[:2]]

    wanted = [read_audio(source.path) for source in find_audio([whole])]
    for source in (tmp_path / "disk", tmp_path / "tables", hub):
        for samples, audio in zip(wanted, find_audio([source]), strict=True):
            np.testing.assert_array_equal(read_audio(audio.path), samples)


def test_a_folder_with_a_state_of_its_own_is_a_folder(tmp_path: Path) -> None:
    file = write(tmp_path / "a.wav", tone(1.0))
    (tmp_path / "state.json").write_text("{}")
    assert [source.path for source in find_audio([tmp_path])] == [file]


def test_names_are_made_unique(tmp_path: Path) -> None:
    content = encoded(1.0)
    paths = ["a/1.wav", "b/1.wav", None, "c/2.wav"]
    found = find_audio([table([{"bytes": content, "path": path} for path in paths])])
    assert names(found) == [
        "dataset/00000000-1.wav",
        "dataset/00000001-1.wav",
        "dataset/00000002",
        "dataset/2.wav",
    ]


def test_two_objects_of_one_name_are_two_data_sets() -> None:
    first, second = speakers(2), speakers(3)
    assert len(find_audio([first, second])) == 5
    assert len({source.path for source in find_audio([first, second])}) == 5


def test_rows_may_name_files(tmp_path: Path) -> None:
    file = write(tmp_path / "a.wav", tone(1.0))
    found = find_audio(
        [table([{"bytes": None, "path": str(file)}, {"bytes": encoded(1.0), "path": "b.flac"}])]
    )
    assert found[0].path == file and Path(found[1].path).name == "b.flac"


@pytest.mark.parametrize("marked", [True, False])
def test_the_column_may_have_another_name(marked: bool) -> None:
    found = find_audio([table([{"bytes": encoded(1.0), "path": "a.flac"}], "speech", marked=marked)])
    assert read_audio(found[0].path).shape == (16_000,)


def test_damaged_rows_are_counted_and_left_out() -> None:
    cells = [
        {"bytes": encoded(1.0), "path": "good.flac"},
        {"bytes": b"no audio", "path": "bad.flac"},
        {"bytes": b"", "path": "empty.flac"},
        {"bytes": None, "path": None},
        None,
        {"bytes": encoded(0.1), "path": "short.flac"},
    ]
    scan = scan_audio(find_audio([table(cells)]), min_seconds=0.5)
    assert [clip.path.name for clip in scan.clips] == ["good.flac"]
    assert scan.skipped == {"unreadable": 1, "empty": 3, "too short": 1}


def test_batches_come_from_many_threads() -> None:
    """And are those of the same audio in files."""
    scan = scan_audio(find_audio([speakers(12)]), min_seconds=0.5)
    plan = BatchPlan(scan.clip_seconds, seconds_per_batch=3.0, min_seconds=0.5, max_seconds=1.0, seed=0)
    with AudioBatches(scan.clips, plan, workers=8, prefetch=16, cache_bytes=0) as batches:
        for _, batch in zip(range(30), batches, strict=False):
            for waveform, crop in zip(batch.waveforms, plan.batch(batch.step), strict=True):
                whole = read_audio(scan.clips[crop.clip].path)
                start = min(crop.start, len(whole) - crop.samples)
                np.testing.assert_array_equal(waveform.numpy(), whole[start : start + crop.samples])


def test_a_run_prunes_on_a_data_set_and_compares_on_it(tmp_path: Path) -> None:
    teacher = make_teacher(tmp_path / "teacher")
    speakers(6).save_to_disk(str(tmp_path / "speech"))
    steps = ["prune.steps=2", "finish.steps=2", "gates.ramp_steps=1"]
    steps += ["data.seconds_per_batch=2.0", "data.min_seconds=0.5"]
    arguments: dict[str, Any] = {"recipe": "quick", "overrides": steps, "device": "cpu"}
    slimvox.prune(teacher, tmp_path / "speech", tmp_path / "one", **arguments)
    slimvox.prune(teacher, datasets.load_from_disk(str(tmp_path / "speech")), tmp_path / "other", **arguments)
    one, other = (
        slimvox.compare(tmp_path / name, tmp_path / "speech", teacher=teacher) for name in ("one", "other")
    )
    assert one.sources[0].clips == 6
    assert one.sources[0].distances == other.sources[0].distances
    card = (tmp_path / "one" / "README.md").read_text()
    assert "speech" in card and str(tmp_path) not in card


def test_names_for_the_public_say_nothing_of_this_machine(tmp_path: Path) -> None:
    assert (
        source_name("hf:openslr/librispeech_asr:clean:train.100")
        == "hf:openslr/librispeech_asr:clean:train.100"
    )
    (tmp_path / "corpus").mkdir()
    assert source_name(f"hf:{tmp_path / 'corpus'}/::train[:10%]") == "corpus::train[:10%]"
    assert source_name(tmp_path / "corpus") == "corpus"
    assert source_name(speakers(1)) == "dataset"


def test_outputs_are_named_after_rows(tmp_path: Path) -> None:
    teacher = make_teacher(tmp_path / "teacher")
    speakers(3).save_to_disk(str(tmp_path / "speech"))
    slimvox.encode_files(teacher, tmp_path / "speech", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0.npz", "1.npz", "2.npz"]


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (
            lambda: datasets.Dataset.from_dict({"text": ["a"]}),
            "must have a column `audio`.*but has none: text",
        ),
        (lambda: table([]), "has no rows"),
        (lambda: speakers(2).to_iterable_dataset().take(0), "has no rows"),
        (
            lambda: datasets.Dataset.from_dict({"text": ["x"]}).to_iterable_dataset(),
            "must have a column `audio`.*but has none: text",
        ),
        (
            lambda: speakers(1).rename_column("audio", "a").add_column("b", [{"bytes": b"x", "path": "x"}]),
            "but has 2: a, b",
        ),
    ],
)
def test_data_sets_of_no_use_are_refused(dataset: Any, message: str) -> None:
    with pytest.raises(SlimvoxError, match=message):
        find_audio([dataset()])


def test_a_streamed_data_set_is_stored_and_read() -> None:
    wanted = scan_audio(find_audio([speakers(3)]), min_seconds=0.1)
    for stream in (speakers(3).to_iterable_dataset(), speakers(5).to_iterable_dataset().take(3)):
        found = index_audio([stream], min_seconds=0.1)
        for one, other in zip(found.clips, wanted.clips, strict=True):
            np.testing.assert_array_equal(read_audio(one.path), read_audio(other.path))


def test_sources_that_are_no_data_set_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.parquet").write_bytes(b"no table")
    with pytest.raises(SlimvoxError, match="cannot be read as parquet"):
        find_audio([tmp_path / "a.parquet"])
    (tmp_path / "disk").mkdir()
    for name in ("state.json", "dataset_info.json"):
        (tmp_path / "disk" / name).write_text("{")
    with pytest.raises(SlimvoxError, match=r"The data set `.*disk` cannot be read"):
        find_audio([tmp_path / "disk"])
    with pytest.raises(SlimvoxError, match="is given as `hf:NAME`"):
        find_audio(["hf:"])
    with pytest.raises(SlimvoxError, match=r"The data set `hf:.*nothing` cannot be loaded"):
        find_audio([f"hf:{tmp_path / 'nothing'}"])
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(SlimvoxError, match=r'pip install "slimvox\[datasets\]"'):
        find_audio([tmp_path / "a.parquet"])


def test_lengths_that_headers_hide_are_found_in_rows_too() -> None:
    mp3, wav = encoded(3.0, format="MP3"), encoded(3.0, format="WAV")
    tag = max(mp3.find(b"Xing"), mp3.find(b"Info"))
    without_table = mp3[mp3.find(mp3[:2], tag + 100) :]
    size = wav.find(b"data") + 4
    half_promised = wav[:size] + (len(wav) // 4 * 2).to_bytes(4, "little") + wav[size + 4 :]
    rows = table([{"bytes": without_table, "path": "a.mp3"}, {"bytes": half_promised, "path": "b.wav"}])
    scan = scan_audio(find_audio([rows]), min_seconds=1.0)
    assert [clip.path.name for clip in scan.clips] == ["a.mp3"]
    assert len(read_audio(scan.clips[0].path)) == pytest.approx(3.0 * 16_000, abs=3_000)
    assert scan.skipped == {"truncated": 1}
