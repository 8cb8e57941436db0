"""Features that are encoded whenever they are read: the same scores as from the cache, in bounded memory."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from torch import Tensor

import models
from slimvox.evaluation import fitting, waveforms
from slimvox.evaluation.examples import Recording
from slimvox.evaluation.feature_cache import FeatureCache
from slimvox.evaluation.features import StoredFeatures, StreamedFeatures
from slimvox.evaluation.tasks import SUPERB, HeadTask, task
from slimvox.evaluation.upstreams import EncoderUpstream, FilterBankUpstream, Upstream, load_upstream
from slimvox.util.errors import SlimvoxError
from tone_tasks import tone_protocol, tone_set

MakeCache = Callable[..., FeatureCache]
WriteTones = Callable[..., str]
HEADS = tuple(each.name for each in SUPERB if isinstance(each, HeadTask))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Upstream:
    strides = {"conv_stride": (8, 5, 4)}  # 100 frames a second
    return load_upstream(models.directory(tmp_path_factory.mktemp("model"), "hubert", **strides))


class Counting(FilterBankUpstream):
    """Counts the clips that it encodes."""

    def __call__(self, waveforms: Tensor) -> Tensor:
        clips.extend([len(waveforms[0])] * len(waveforms))
        return super().__call__(waveforms)


clips: list[int] = []


def scores(name: str, data: Any, cache: FeatureCache, **changes: Any) -> dict[str, Any]:
    found = task(name).run(data, cache, tone_protocol(name, **changes), seeds=1)
    return {**dataclasses.asdict(found), "fit_seconds": 0}


@pytest.mark.parametrize("name", [each.name for each in SUPERB])
def test_streamed_and_stored_features_give_the_same_bits(
    name: str, tmp_path: Path, write_tones: WriteTones, make_cache: MakeCache, encoder: Upstream
) -> None:
    data = tone_set(name, tmp_path, write_tones)
    changes: dict[str, Any] = {} if name == "qbe" else {"accumulation": 2, "steps": 2, "evaluations": 1}
    expected = scores(name, data, make_cache(encoder), **changes)
    assert (tmp_path / "cache").is_dir()
    # Room for some of the frames in memory.
    streaming = make_cache(encoder, directory=None, max_bytes=60_000, workers=2)
    assert json.dumps(scores(name, data, streaming, **changes)) == json.dumps(expected)


@pytest.mark.parametrize("pooling", ["frames", "mean"])
def test_streamed_features_are_those_of_the_cache(
    pooling: Any, tmp_path: Path, write_tones: WriteTones, make_cache: MakeCache, encoder: Upstream
) -> None:
    examples = tone_set("ks", tmp_path, write_tones).examples
    excerpts = [waveforms.Excerpt(recording=each.recording) for each in examples[:7]]
    options: dict[str, Any] = {"task": "ks", "pooling": pooling, "whiten_on": excerpts}
    stored = make_cache(encoder).features(excerpts, **options)
    streamed = make_cache(encoder, directory=None, max_bytes=1).features(excerpts, **options)
    assert isinstance(stored, StoredFeatures) and isinstance(streamed, StreamedFeatures)
    assert streamed.lengths == stored.lengths
    # Averages of clips of one length are encoded together where they are stored.
    exact = {"atol": 0, "rtol": 0} if pooling == "frames" else {"atol": 1e-4, "rtol": 1e-4}
    for excerpt in excerpts:
        torch.testing.assert_close(streamed.get(excerpt.id), stored.get(excerpt.id), **exact)


def test_all_learning_rates_share_one_stream(
    tmp_path: Path, write_tones: WriteTones, make_cache: MakeCache
) -> None:
    data = tone_set("pr", tmp_path, write_tones)
    protocol = tone_protocol("pr", whiten=False, steps=4, batch=4, evaluations=2)
    counts = {}
    for rates in ((1e-2,), (1e-2, 1e-3, 1e-4)):
        clips.clear()
        cache = make_cache(Counting(), directory=None, max_bytes=1)
        task("pr").run(data, cache, dataclasses.replace(protocol, learning_rates=rates), seeds=1)
        counts[len(rates)] = len(clips)
    # 4 batches of 4 less repeats in a batch, twice dev, once test.
    assert counts[1] == counts[3] <= 4 * 4 + 2 * 3 + 3


def test_memory_for_features_is_bounded(
    tmp_path: Path, write_tones: WriteTones, make_cache: MakeCache
) -> None:
    examples = tone_set("pr", tmp_path, write_tones).examples
    excerpts = [waveforms.Excerpt(recording=each.recording) for each in examples]
    limit = 150_000
    streamed = make_cache(Counting(), directory=None, max_bytes=limit).features(excerpts, task="pr")
    assert isinstance(streamed, StreamedFeatures)
    clips.clear()
    ids = [excerpt.id for excerpt in excerpts]
    for _ in range(3):
        list(streamed.read([ids[:6], ids[6:]]))
    held = {id: each.nbytes for id, each in streamed._kept.items()}
    assert 0 < sum(held.values()) <= limit < 2 * sum(held.values())
    assert len(clips) == len(ids) + 2 * (len(ids) - len(held))


def test_auto_caches_what_fits_and_streams_the_rest(
    tmp_path: Path, write_tones: WriteTones, make_cache: MakeCache
) -> None:
    examples = tone_set("pr", tmp_path, write_tones).examples
    excerpts = [waveforms.Excerpt(recording=each.recording) for each in examples]
    seconds = sum(soundfile.info(tmp_path / "data" / each.recording.id).duration for each in examples)
    exact = round(seconds * 100) * 240 * 2
    for max_bytes, kind in ((exact - 1, StreamedFeatures), (exact, StoredFeatures)):
        cache = make_cache(Counting(), only_if_it_fits=True, max_bytes=max_bytes)
        assert type(cache.features(excerpts, task="pr")) is kind
    with pytest.raises(SlimvoxError, match="--cache auto"):
        make_cache(Counting(), max_bytes=1000).features(excerpts, task="pr", pooling="mean")


def test_what_cannot_be_read_is_counted_and_what_changes_stops(
    tmp_path: Path, write_tones: WriteTones, make_cache: MakeCache
) -> None:
    examples = tone_set("pr", tmp_path, write_tones).examples
    excerpts = [waveforms.Excerpt(recording=each.recording) for each in examples]
    (tmp_path / "data" / excerpts[0].id).write_bytes(b"no audio")
    streamed = make_cache(Counting(), directory=None, max_bytes=1).features(excerpts, task="pr")
    assert streamed.skipped == {"unreadable": 1} and excerpts[0].id not in streamed
    soundfile.write(tmp_path / "data" / excerpts[1].id, torch.zeros(900).numpy(), 16_000)
    with pytest.raises(SlimvoxError, match="changed during the evaluation"):
        streamed.get(excerpts[1].id)
    (tmp_path / "data" / excerpts[2].id).unlink()
    with pytest.raises(SlimvoxError, match="cannot be read"):
        streamed.get(excerpts[2].id)


def test_decoding_stays_a_bounded_number_of_clips_ahead(
    tmp_path: Path, write_tones: WriteTones, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = tone_set("pr", tmp_path, write_tones).examples[:3]
    excerpts = [waveforms.Excerpt(recording=each.recording) for each in examples]
    monkeypatch.setattr(waveforms, "CLIPS_AHEAD", 7)
    asked = []

    def lists(each: list[Any]) -> Any:
        for number in range(1000):
            asked.append(number)
            yield each

    for each, expected in ((excerpts, 3), (excerpts[:1], 8), ([], 8)):
        asked.clear()
        read = waveforms.read_ahead(lists(each), 2)
        next(read)
        assert len(asked) == expected
        read.close()


def test_on_the_cpu_the_frames_of_a_clip_are_encoded_alone(
    tmp_path: Path, write_tones: WriteTones, make_cache: MakeCache
) -> None:
    """Beside another number of clips the last bits would differ."""
    names = [write_tones(str(number), "ab", seed=number) for number in range(5)]
    excerpts = [
        waveforms.Excerpt(recording=Recording.of_file(name, tmp_path / "data" / name)) for name in names
    ]
    sizes: dict[str, list[int]] = {"frames": [], "mean": []}
    for pooling in ("frames", "mean"):

        class Sizes(FilterBankUpstream):
            def __call__(self, waveforms: Tensor) -> Tensor:
                sizes[pooling].append(len(waveforms))  # noqa: B023
                return super().__call__(waveforms)

        make_cache(Sizes()).features(excerpts, task="ks", pooling=pooling)
    assert sizes == {"frames": [1] * 5, "mean": [5]}


def test_heads_side_by_side_become_what_they_are_alone(
    tmp_path: Path, write_tones: WriteTones, make_cache: MakeCache, bands: Upstream
) -> None:
    """ASR's head draws masks and dropout from the global random state."""
    training = task("asr").prepare(
        tone_set("asr", tmp_path, write_tones), make_cache(bands), tone_protocol("asr")
    )
    rates = (1e-2, 3e-3)
    together = fitting.fit(training, rates, 0)
    for rate, fit in zip(rates, together, strict=True):
        (alone,) = fitting.fit(training, (rate,), 0)
        assert (alone.dev_score, alone.learning_rate) == (fit.dev_score, fit.learning_rate)
        for a, b in zip(alone.head.parameters(), fit.head.parameters(), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("name", HEADS)
def test_heads_in_bf16_learn_too(
    name: str, tmp_path: Path, write_tones: WriteTones, make_cache: MakeCache, bands: Upstream
) -> None:
    data = tone_set(name, tmp_path, write_tones)
    found: dict[bool, list[Tensor]] = {}
    for bf16 in (False, True):
        training = task(name).prepare(data, make_cache(bands, bf16=bf16), tone_protocol(name))
        (trained,) = fitting.fit(training, (1e-2,), 0)
        assert all(each.dtype == torch.float32 for each in trained.head.parameters())
        found[bf16] = [each.detach() for each in trained.head.parameters()]
    assert not all(torch.equal(a, b) for a, b in zip(*found.values(), strict=True))
    for a, b in zip(*found.values(), strict=True):
        torch.testing.assert_close(a, b, atol=0.1, rtol=0.1)


def test_bf16_is_another_model_for_the_cache_and_close_to_float32(tmp_path: Path) -> None:
    directory = models.directory(tmp_path, "hubert")
    plain, half = load_upstream(directory), load_upstream(directory, precision="bf16")
    assert isinstance(half, EncoderUpstream) and half.fingerprint == f"{plain.fingerprint}-bf16"
    waveform = torch.randn(1, 4000)
    expected, found = plain(waveform), half(waveform)
    assert found.dtype == torch.float32 and not torch.equal(found, expected)
    assert float((found - expected).norm() / expected.norm()) < 0.05
