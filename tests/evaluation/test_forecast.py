"""`--plan`: what an evaluation takes, without writing anything."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile
from rich.console import Console

import slimvox
from slimvox.cli.main import run
from slimvox.evaluation import forecast as forecasts
from slimvox.evaluation.feature_cache import FeatureCache
from slimvox.evaluation.fitting import TrainingProbe
from slimvox.evaluation.forecast import TaskForecast
from slimvox.evaluation.result_table import print_plan
from slimvox.evaluation.tasks import SUPERB, task
from slimvox.evaluation.upstreams import Upstream
from tone_tasks import tone_protocol, tone_set

WriteTones = Callable[..., str]
MakeCache = Callable[..., FeatureCache]


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecasts, "PROBE_SECONDS", 0.02)


@pytest.mark.parametrize("name", [each.name for each in SUPERB])
def test_every_task_has_a_plan_and_leaves_nothing(
    name: str, tmp_path: Path, write_tones: WriteTones, capsys: pytest.CaptureFixture[str]
) -> None:
    tone_set(name, tmp_path, write_tones)
    before = sorted(tmp_path.rglob("*"))
    small = {field: value for field, value in vars(tone_protocol(name)).items() if field in SMALL}
    options = [f"{name}.{field}={value}" for field, value in small.items()] if name != "qbe" else []
    arguments = ["evaluate", "fbank", "--data", str(tmp_path / "data"), "--plan", "--suite", "official"]
    arguments += ["--manifest", f"{name}={tmp_path / name}.tsv", "--cache", str(tmp_path / "cache")]
    assert run([*arguments, "--out", str(tmp_path / "out"), "--set", "ks.steps=9", *options]) == 0
    out = capsys.readouterr().out
    assert name.upper() in out and "encoding" in out
    assert sorted(tmp_path.rglob("*")) == before


SMALL = ("projection", "hidden", "pooled", "embedding", "batch")


def forecast(name: str, folder: Path, cache: FeatureCache, **changes: Any) -> TaskForecast:
    table = folder / f"{name}.tsv"
    data = task(name).read_manifest(table, folder / "data")
    return forecasts._forecast(name, [data], cache, tone_protocol(name, **changes), 3)


def test_audio_steps_and_bytes_are_exact(
    tmp_path: Path, write_tones: WriteTones, make_cache: MakeCache, bands: Upstream
) -> None:
    data = tone_set("pr", tmp_path, write_tones)
    seconds = {
        each.recording.id: soundfile.info(tmp_path / "data" / each.recording.id).duration
        for each in data.examples
    }
    found = forecast("pr", tmp_path, make_cache(bands), steps=7)
    assert found.audio_hours * 3600 == pytest.approx(sum(seconds.values()))
    assert (found.recordings, found.unreadable, found.steps, found.heads) == (12, 0, 7, 2 + 2)
    assert found.feature_bytes == round(100 * sum(seconds.values())) * 10 * 2
    assert found.place == "disk" and found.encoded_hours == found.audio_hours
    assert found.hours == found.encoding_hours + found.head_hours > 0


def test_folds_of_the_same_recordings_are_encoded_once_if_their_features_are_on_disk(
    tmp_path: Path, write_tones: WriteTones, make_cache: MakeCache, bands: Upstream
) -> None:
    folds = [tone_set("ks", tmp_path, write_tones)] * 5
    on_disk = forecasts._forecast("ks", folds, make_cache(bands), tone_protocol("ks"), 1)
    assert on_disk.place == "disk" and on_disk.encoded_hours == pytest.approx(on_disk.audio_hours)
    without = forecasts._forecast("ks", folds, make_cache(bands, directory=None), tone_protocol("ks"), 1)
    assert without.place == "memory" and without.encoded_hours == pytest.approx(5 * without.audio_hours)


def test_streamed_audio_is_counted_as_often_as_it_is_read(
    tmp_path: Path, write_tones: WriteTones, make_cache: MakeCache, bands: Upstream
) -> None:
    data = tone_set("pr", tmp_path, write_tones)
    of: dict[str, list[float]] = {"train": [], "dev": [], "test": []}
    for each in data.examples:
        of[each.split].append(soundfile.info(tmp_path / "data" / each.recording.id).duration)
    cache = make_cache(bands, directory=None, max_bytes=1)
    found = forecast("pr", tmp_path, cache, steps=5, batch=2, accumulation=3, evaluations=2)
    assert found.place == "streamed"
    batches = 5 * 2 * 3 * sum(of["train"]) / len(of["train"])
    # Both learning rates share one stream; the two further seeds have their own.
    expected = 3 * (batches + 2 * sum(of["dev"])) + sum(of["test"])
    assert found.encoded_hours * 3600 == pytest.approx(expected, rel=1e-3)
    size = found.feature_bytes
    partly = make_cache(bands, directory=None, max_bytes=size // 2)
    half = forecast("pr", tmp_path, partly, steps=5, batch=2, accumulation=3, evaluations=2)
    once = 3600 * half.audio_hours
    assert half.place == "streamed"
    assert half.encoded_hours * 3600 == pytest.approx(once + (expected - once) / 2, rel=1e-2)
    whole = forecast("pr", tmp_path, make_cache(bands, directory=None, max_bytes=size))
    assert whole.place == "memory" and whole.encoded_hours == pytest.approx(whole.audio_hours)
    averages = make_cache(bands, directory=None)
    tone_set("ks", tmp_path, write_tones)
    assert forecast("ks", tmp_path, averages).place == "memory"


def test_a_probe_extrapolates_to_the_whole_batch(
    tmp_path: Path, write_tones: WriteTones, make_cache: MakeCache, bands: Upstream
) -> None:
    training = task("pr").prepare(
        tone_set("pr", tmp_path, write_tones), make_cache(bands), tone_protocol("pr", steps=10, batch=4)
    )
    probe = TrainingProbe.measure(training, seconds=0.0)
    assert probe.batch_seconds > 0 and probe.read_seconds > 0
    given = TrainingProbe(batch_seconds=2.0, update_seconds=1.0, read_seconds=0.5)
    # 10 steps of a batch and an update; twice 3 items of dev and 3 of test.
    assert given.total_seconds(training) == 10 * 3 + (2 * 3 + 3) * 0.5


def plan(**changes: Any) -> TaskForecast:
    fields: dict[str, Any] = {
        "task": "asr",
        "recordings": 33_862,
        "unreadable": 0,
        "audio_hours": 111.4,
        "heads": 5,
        "steps": 200_000,
        "feature_bytes": 401 << 30,
        "place": "streamed",
        "encoded_hours": 22_577.0,
        "encoding_hours": 12_345.6,
        "head_hours": 23_456.7,
        "stored_hours": 99.9,
    }
    return TaskForecast(**{**fields, **changes})


def test_the_table_loses_no_word_at_80_columns() -> None:
    out = io.StringIO()
    rows = (plan(), plan(task="qbe", place="memory", encoding_hours=0.01, heads=0, unreadable=3))
    print_plan(Console(file=out, width=80), rows)
    text = out.getvalue()
    assert "…" not in text and max(map(len, text.splitlines())) <= 80
    (asr,) = (line for line in text.splitlines() if "ASR" in line and "x 200k" in line)
    for word in ("111 h", "5 x 200k", "401 GiB", "no", "12,346 h", "23,457 h", "35,802 h"):
        assert word in asr, asr
    words = " ".join(text.split())
    assert "--cache-gib 401" in words and "22,577 h of audio" in words
    assert "QBE: 3 of 33862 recordings cannot be read" in words


def test_a_plan_as_a_function_and_as_json(
    tmp_path: Path, write_tones: WriteTones, capsys: pytest.CaptureFixture[str]
) -> None:
    tone_set("ks", tmp_path, write_tones)
    found = slimvox.evaluate(
        "fbank",
        tmp_path / "data",
        manifests={"ks": [tmp_path / "ks.tsv"]},
        overrides=["ks.steps=3"],
        cache="none",
        plan=True,
    )
    assert found.results == () and [each.task for each in found.plan] == ["ks"]
    assert found.to_dict()["plan"][0]["hours"] == found.plan[0].hours
