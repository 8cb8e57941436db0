from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

import models
from slimvox.audio import UnreadableAudioError
from slimvox.evaluation import waveforms
from slimvox.evaluation.cache_room import PARTIAL, STALE_SECONDS, remove_stale
from slimvox.evaluation.examples import Recording
from slimvox.evaluation.feature_cache import FeatureCache
from slimvox.evaluation.features import Features
from slimvox.evaluation.upstreams import FilterBankUpstream, load_upstream
from slimvox.evaluation.waveforms import Excerpt
from slimvox.util.errors import SlimvoxError

MakeCache = Callable[..., FeatureCache]


class BrokenUpstream(FilterBankUpstream):
    def __call__(self, waveforms: Tensor) -> Tensor:
        features = super().__call__(waveforms)
        features[:, 3] = torch.nan
        return features


@pytest.fixture
def excerpts(tmp_path: Path) -> list[Excerpt]:
    draw = np.random.default_rng(0)
    found = []
    for number, samples in enumerate((8000, 8000, 12_000)):
        path = tmp_path / f"{number}.wav"
        soundfile.write(path, 0.1 * draw.standard_normal(samples), 16_000)
        found.append(Excerpt(recording=Recording.of_file(str(number), path)))
    return found


def encodes(cache: FeatureCache, excerpts: list[Excerpt]) -> bool:
    """Ask for features; tell whether they had to be encoded."""
    before = cache.encoding.seconds
    cache.features(excerpts, task="ks")
    return cache.encoding.seconds > before


def test_features_are_computed_once(make_cache: MakeCache, excerpts: list[Excerpt]) -> None:
    cache = make_cache()
    first = cache.features(excerpts, task="ks")
    assert not encodes(cache, excerpts)
    again = cache.features(excerpts, task="other")
    assert [again.frames(str(number)) for number in range(3)] == [48, 48, 73]
    for number in range(3):
        assert torch.equal(first.get(str(number)), again.get(str(number)))


def test_features_are_those_of_the_encoder_alone(
    make_cache: MakeCache, excerpts: list[Excerpt], tmp_path: Path
) -> None:
    upstream = load_upstream(models.directory(tmp_path / "model", "wavlm"))
    features = make_cache(upstream).features(excerpts, task="ks")
    assert (features.layers, features.width) == (4, 32)
    for number in range(3):
        wave, _ = soundfile.read(tmp_path / f"{number}.wav", dtype="float32")
        alone = upstream(torch.from_numpy(wave).unsqueeze(0))[0]
        torch.testing.assert_close(features.get(str(number)), alone, atol=4e-3, rtol=4e-3)


def test_means_are_the_means_of_the_frames(make_cache: MakeCache, excerpts: list[Excerpt]) -> None:
    cache = make_cache()
    frames = cache.features(excerpts, task="ks")
    means = cache.features(excerpts, task="ks", pooling="mean")
    for number in ("0", "1", "2"):
        assert means.frames(number) == 1
        torch.testing.assert_close(means.get(number)[0], frames.get(number).mean(0), atol=2e-3, rtol=1e-3)


def test_whitened_features_are_white(make_cache: MakeCache, excerpts: list[Excerpt]) -> None:
    features = make_cache().features(excerpts, task="pr", whiten_on=excerpts)
    frames = torch.cat([features.get(number) for number in ("0", "1", "2")])[:, 0]
    torch.testing.assert_close(frames.mean(0), torch.zeros(240), atol=0.02, rtol=0)
    assert frames.var(0).max() < 1.1


def test_other_weights_other_files_other_features(
    make_cache: MakeCache, excerpts: list[Excerpt], tmp_path: Path
) -> None:
    one = load_upstream(models.directory(tmp_path / "one", "hubert", seed=1))
    two = load_upstream(models.directory(tmp_path / "two", "hubert", seed=2))
    make_cache(one).features(excerpts, task="ks")
    assert encodes(make_cache(two), excerpts)
    assert not encodes(make_cache(one), excerpts)
    soundfile.write(tmp_path / "0.wav", np.full(9000, 0.1), 16_000)
    assert encodes(make_cache(one), excerpts)


def test_an_interruption_leaves_nothing_behind(
    make_cache: MakeCache, excerpts: list[Excerpt], tmp_path: Path
) -> None:
    class Interrupted(FilterBankUpstream):
        def __call__(self, waveforms: Tensor) -> Tensor:
            if waveforms.shape[1] == 12_000:
                raise KeyboardInterrupt
            return super().__call__(waveforms)

    with pytest.raises(KeyboardInterrupt):
        make_cache(Interrupted()).features(excerpts, task="ks")
    assert not list((tmp_path / "cache").iterdir())
    assert make_cache().features(excerpts, task="ks").frames("2") == 73


def test_features_that_are_not_finite_stop_the_task_by_name(
    make_cache: MakeCache, excerpts: list[Excerpt], tmp_path: Path
) -> None:
    with pytest.raises(SlimvoxError, match=r"^sid: .* NaN .* for 0"):
        make_cache(BrokenUpstream()).features(excerpts, task="sid")
    assert not list((tmp_path / "cache").iterdir())


def test_what_cannot_be_read_is_counted(
    make_cache: MakeCache, excerpts: list[Excerpt], tmp_path: Path
) -> None:
    (tmp_path / "1.wav").write_bytes(b"no audio at all")
    (tmp_path / "2.wav").unlink()
    soundfile.write(tmp_path / "3.wav", np.zeros(300), 16_000)
    short = Excerpt(recording=Recording.of_file("3", tmp_path / "3.wav"))
    features = make_cache().features([*excerpts, short], task="ks")
    assert dict(features.skipped) == {"unreadable": 1, "missing": 1, "too short": 1}
    assert "0" in features and "1" not in features
    with pytest.raises(SlimvoxError, match="none of the recordings"):
        make_cache().features(excerpts[1:], task="ks")


def test_the_oldest_features_make_room(
    make_cache: MakeCache, excerpts: list[Excerpt], tmp_path: Path
) -> None:
    size = 48 * 240 * 2
    cache = make_cache(max_bytes=2 * size)
    for number, age in ((0, 300), (1, 200)):
        cache.features([excerpts[number]], task="ks")
        for index in (tmp_path / "cache").glob("*/index.json"):
            if str(number) in json.loads(index.read_text())["positions"]:
                os.utime(index, (index.stat().st_mtime - age,) * 2)
    cache.features([excerpts[0]], task="ks")
    assert not encodes(cache, [excerpts[0]])
    third = Excerpt(recording=Recording.of_file("third", tmp_path / "0.wav"))
    cache.features([third], task="ks")
    held = {
        id
        for index in (tmp_path / "cache").glob("*/index.json")
        for id in json.loads(index.read_text())["positions"]
    }
    assert held == {"0", "third"}
    with pytest.raises(SlimvoxError, match="--cache-gib"):
        cache.features(excerpts, task="ks")


def test_folders_that_another_process_is_removing_do_no_harm(
    make_cache: MakeCache, excerpts: list[Excerpt], tmp_path: Path
) -> None:
    half_removed = tmp_path / "cache" / "a_key"
    half_removed.mkdir(parents=True)
    (half_removed / "index.json").write_text("{}")
    cache = make_cache(max_bytes=48 * 240 * 2)
    assert encodes(cache, [excerpts[0]])
    assert encodes(cache, [excerpts[1]])  # the first had to go
    assert encodes(cache, [excerpts[0]])
    assert not list((tmp_path / "cache").glob("*removed*"))


def test_features_that_go_while_they_are_opened_are_computed_again(
    make_cache: MakeCache, excerpts: list[Excerpt], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = make_cache()
    wanted = cache.features([excerpts[0]], task="ks").get("0")
    opened, taken = FeatureCache._open, []

    def too_late(self: FeatureCache, folder: Path) -> Features:
        if not taken:
            taken.append(folder)
            shutil.rmtree(folder)
        return opened(self, folder)

    monkeypatch.setattr(FeatureCache, "_open", too_late)
    before = cache.encoding.seconds
    again = cache.features([excerpts[0]], task="ks")
    assert taken and cache.encoding.seconds > before and torch.equal(again.get("0"), wanted)


def test_a_cache_of_another_model_is_refused(
    make_cache: MakeCache, excerpts: list[Excerpt], tmp_path: Path
) -> None:
    make_cache().features(excerpts, task="ks")
    index = next((tmp_path / "cache").glob("*/index.json"))
    index.write_text(index.read_text().replace("fbank-80", "other"))
    with pytest.raises(SlimvoxError, match="another model"):
        make_cache().features(excerpts, task="ks")
    index.write_text("{")
    with pytest.raises(SlimvoxError, match="damaged"):
        make_cache().features(excerpts, task="ks")


def test_two_recordings_of_one_id_are_refused(make_cache: MakeCache, excerpts: list[Excerpt]) -> None:
    other = Excerpt(recording=Recording(id="0", clips=excerpts[1].recording.clips))
    with pytest.raises(SlimvoxError, match="two recordings have the id 0"):
        make_cache().features([excerpts[0], other], task="ks")


def test_what_could_not_be_read_once_is_tried_again(
    make_cache: MakeCache, excerpts: list[Excerpt], monkeypatch: pytest.MonkeyPatch
) -> None:
    read = waveforms.read_audio

    def failing(path: Path, **settings: object) -> object:
        if path.name == "1.wav":
            raise UnreadableAudioError(path, "unreadable", "the network is down")
        return read(path, **settings)

    monkeypatch.setattr(waveforms, "read_audio", failing)
    for _ in range(2):
        assert "1" not in make_cache().features(excerpts, task="ks")
    assert not encodes(make_cache(), excerpts)  # it still cannot be read
    monkeypatch.undo()
    assert "1" in make_cache().features(excerpts, task="ks")
    assert not encodes(make_cache(), excerpts)


def test_features_that_are_being_written_are_not_removed(tmp_path: Path) -> None:
    folders = [tmp_path / f"{PARTIAL}{name}" for name in ("writing", "stale", "empty")]
    for folder in folders:
        folder.mkdir()
    for folder in folders[:2]:
        (folder / "features.bin").write_bytes(b"0")
    old = time.time() - 2 * STALE_SECONDS
    os.utime(folders[1] / "features.bin", (old, old))
    for folder in folders:
        os.utime(folder, (old, old))
    remove_stale(tmp_path)
    assert [*tmp_path.iterdir()] == folders[:1]
