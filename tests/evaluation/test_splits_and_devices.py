"""Every task chooses on dev and scores on test, trains where it is told to, and leaves the caller's random state."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import models
from slimvox.checkpoint import load
from slimvox.evaluation import upstreams
from slimvox.evaluation.feature_cache import FeatureCache
from slimvox.evaluation.features import StoredFeatures
from slimvox.evaluation.fitting import Fit, sweep
from slimvox.evaluation.tasks import SUPERB, task
from slimvox.evaluation.upstreams import EncoderUpstream, Upstream
from tone_tasks import COUNTS, tone_protocol, tone_set

MakeCache = Callable[..., FeatureCache]
WriteTones = Callable[..., str]


@pytest.mark.parametrize("name", [each.name for each in SUPERB])
def test_selection_sees_train_and_dev_alone_and_scores_are_those_of_test(
    name: str,
    tmp_path: Path,
    write_tones: WriteTones,
    make_cache: MakeCache,
    bands: Upstream,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = tone_set(name, tmp_path, write_tones)
    read: list[str] = []
    slice_of = StoredFeatures._slice

    def recorded(self: StoredFeatures, id: str) -> Any:
        read.append(id)
        return slice_of(self, id)

    monkeypatch.setattr(StoredFeatures, "_slice", recorded)
    whitened = {"ks": "whiten", "sid": "standardise", "ic": "whiten", "er": "whiten"}.get(name)
    protocol = tone_protocol(name, **({whitened: False} if whitened else {}))
    before = torch.get_rng_state()
    scores = task(name).run(data, make_cache(bands), protocol, seeds=2)
    assert torch.equal(torch.get_rng_state(), before)
    splits = [id.split("-")[0] for id in read]
    assert set(splits) == set(COUNTS) - ({"train"} if name == "qbe" else set())
    first = splits.index("test")
    assert set(splits[first:]) == {"test"}, "after the first look at test, nothing is chosen or trained"
    of_split = {split: {id for id in read if id.startswith(split)} for split in ("dev", "test")}
    expected = {"qbe": 9, "asv": 4}.get(name, 3)
    assert {split: len(ids) for split, ids in of_split.items()} == {"dev": expected, "test": expected}
    reads = {read.count(id) for id in of_split["test"]}
    assert reads == {1}, "each recording of test is read once, for the scores of all seeds"
    assert set(scores.test) == {metric.name for metric in task(name).metrics}


@pytest.mark.parametrize("name", [each.name for each in SUPERB])
def test_every_tensor_of_a_task_is_made_on_the_device_it_is_told(
    name: str, tmp_path: Path, write_tones: WriteTones, make_cache: MakeCache, bands: Upstream
) -> None:
    data = tone_set(name, tmp_path, write_tones)
    cache = make_cache(bands, device=torch.device("cpu"))
    expected = task(name).run(data, cache, tone_protocol(name), seeds=1)
    # A tensor that is made without a device lands on meta here, and meets those on the CPU with an error.
    with torch.device("meta"):
        scores = task(name).run(data, cache, tone_protocol(name), seeds=1)
    assert scores.test == expected.test


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", [each.name for each in SUPERB])
def test_every_task_trains_on_a_gpu(
    name: str, tmp_path: Path, write_tones: WriteTones, make_cache: MakeCache, bands: Upstream
) -> None:
    data = tone_set(name, tmp_path, write_tones)
    built: list[torch.device] = []
    hook = nn.modules.module.register_module_forward_pre_hook(
        lambda module, inputs: built.append(
            next((p.device for p in module.parameters()), torch.device("cuda"))
        )
    )
    before = torch.cuda.get_rng_state()
    try:
        scores = task(name).run(
            data, make_cache(bands, device=torch.device("cuda")), tone_protocol(name), seeds=1
        )
    finally:
        hook.remove()
    assert {device.type for device in built} == (set() if name == "qbe" else {"cuda"})
    assert torch.equal(torch.cuda.get_rng_state(), before)
    on_cpu = task(name).run(data, make_cache(bands), tone_protocol(name), seeds=1)
    assert scores.counts == on_cpu.counts
    assert all(math.isfinite(value) for values in scores.test.values() for value in values)


def test_the_encoder_goes_where_the_one_device_helper_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load(models.directory(tmp_path, "hubert"))
    asked: list[str] = []

    def find(name: str) -> torch.device:
        asked.append(name)
        return torch.device("meta")

    monkeypatch.setattr(upstreams, "find_device", find)
    upstream = EncoderUpstream(encoder, "x", device="auto")
    assert asked == ["auto"] and upstream.device.type == "meta"
    assert {parameter.device.type for parameter in upstream.encoder.parameters()} == {"meta"}


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_auto_is_a_gpu_of_either_kind(
    cuda: bool, mps: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from slimvox.util.devices import find_device

    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert find_device("auto").type == expected


def _fit(rate: float, dev_score: float) -> Fit:
    return Fit(head=nn.Linear(1, 1), learning_rate=rate, dev_score=dev_score)


def test_the_learning_rate_that_is_best_on_dev_trains_the_other_seeds() -> None:
    scores: dict[float, float] = {0.1: 0.2, 0.01: 0.9, 0.001: -math.inf}
    tried: list[tuple[float, int]] = []

    def fit_at(rates: Sequence[float], seed: int) -> list[Fit]:
        tried.extend((rate, seed) for rate in rates)
        return [_fit(rate, scores[rate]) for rate in rates]

    swept = sweep(fit_at, tuple(scores), 3, "x")
    assert tried == [(0.1, 0), (0.01, 0), (0.001, 0), (0.01, 1), (0.01, 2)]
    assert [each.learning_rate for each in swept.fits] == [0.01, 0.01, 0.01]


def test_counts_of_folds_are_their_sum() -> None:
    from slimvox.evaluation.suite import _result
    from slimvox.evaluation.tasks.base import Scores

    def fold(counts: dict[str, int], skipped: dict[str, int]) -> Scores:
        parts: dict[str, Any] = {"test": {"er": (50.0,)}, "chance": {"er": 25.0}, "chance_is": "x"}
        return Scores(counts=counts, skipped=skipped, **parts)

    folds = [fold({"train": 7, "test": 2}, {"unreadable": 1}), fold({"train": 5, "test": 4}, {"empty": 3})]
    result = _result("er", {}, folds, {})
    assert result.counts == {"train": 12, "test": 6}
    assert result.skipped == {"unreadable": 1, "empty": 3}
