"""Weighted mixes of sources."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from audio.audio_files import write_tones
from slimvox.audio import BatchPlan, WeightedAudio, as_sources, find_audio, source_name
from slimvox.audio.mix import unweighted
from slimvox.pruning.data import gather_audio
from slimvox.pruning.settings import DataSettings
from slimvox.util.errors import SlimvoxError

SETTINGS: dict[str, float] = {"seconds_per_batch": 30.0, "min_seconds": 1.0, "max_seconds": 8.0}


@pytest.mark.parametrize(
    ("text", "parted"),
    [
        ("libri/:1", ("libri/", 1.0)),
        ("arabic/:0.3", ("arabic/", 0.3)),
        ("a:b.csv:.5", ("a:b.csv", 0.5)),
        ("plain/", ("plain/", None)),
        ("hf:name:2", ("hf:name:2", None)),
        ("hf:name:config:train:2", ("hf:name:config:train", 2.0)),
        ("hf:name:::2e-1", ("hf:name::", 0.2)),
        ("hf:name:config:train[:10%]", ("hf:name:config:train[:10%]", None)),
        ("https://host:8080", ("https://host:8080", None)),
        ("https://host:8080/a.tar:3", ("https://host:8080/a.tar", 3.0)),
    ],
)
def test_a_weight_is_the_number_behind_the_last_colon(text: str, parted: tuple[str, float | None]) -> None:
    assert unweighted(text) == parted


def test_a_file_with_such_a_name_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x:1").mkdir()
    assert unweighted("x:1") == ("x:1", None)


def test_mappings_are_mixes(tmp_path: Path) -> None:
    assert as_sources({"a/": 1, "b/": 0.5}) == [WeightedAudio("a/", 1), WeightedAudio("b/", 0.5)]
    write_tones(tmp_path / "a", [2.0])
    assert source_name(f"{tmp_path}/a:2") == "a"
    assert len(find_audio([f"{tmp_path}/a:2"])) == 1


@pytest.mark.parametrize(
    ("audio", "kind"),
    [
        ([np.zeros(4, "f4")], "ndarray"),
        (torch.zeros(1, 4), "Tensor"),
        (b"RIFF", "bytes"),
        (None, "NoneType"),
        ({None: 1.0}, "NoneType"),
        (["a/", 3], "int"),
    ],
)
def test_sources_of_other_types_are_explained(audio: Any, kind: str) -> None:
    with pytest.raises(SlimvoxError, match=rf"one source is of type {kind}: write waveforms to files first"):
        as_sources(audio)


@pytest.mark.parametrize("weight", ["0", "-1", "0.0", "nan", "inf"])
def test_weights_that_cannot_be(weight: str) -> None:
    with pytest.raises(SlimvoxError, match=r"^The weight of `a/` must be a number above 0, but is .*\.$"):
        unweighted(f"a/:{weight}")
    with pytest.raises(SlimvoxError, match="above 0"):
        as_sources({"a/": float(weight)})


def drawn_seconds(plan: BatchPlan, groups: np.ndarray, epochs: int) -> np.ndarray:
    """Seconds drawn from each group."""
    seconds = np.zeros(groups.max() + 1)
    for index in range(epochs * plan.batches_per_epoch):
        for crop in plan.batch(index):
            seconds[groups[crop.clip]] += crop.samples / plan.sample_rate_hz
    return seconds


@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (1.0, 0.3, 0.1), (0.01, 5.0, 1.0)])
def test_weights_are_shares_of_the_seconds(weights: tuple[float, ...]) -> None:
    random = np.random.default_rng(0)
    # Sizes and lengths differ: a share of clips would be something else.
    groups = np.repeat([0, 1, 2], [400, 30, 80])
    seconds = np.concatenate([random.uniform(1, 8, 400), random.uniform(6, 60, 30), random.uniform(1, 2, 80)])
    plan = BatchPlan(seconds, **SETTINGS, groups=groups, weights=weights)
    drawn = drawn_seconds(plan, groups, 10)
    np.testing.assert_allclose(drawn / drawn.sum(), np.array(weights) / sum(weights), rtol=0.06, atol=0.005)


def test_every_clip_of_a_mix_has_its_turn_before_one_comes_again() -> None:
    groups = np.repeat([0, 1], [50, 7])
    plan = BatchPlan(np.full(57, 4.0), **SETTINGS, groups=groups, weights=(1.0, 1.0), seed=3)
    counts = np.zeros(57, dtype=int)
    orders = []
    for epoch in range(4):
        crops = [
            crop
            for n in range(plan.batches_per_epoch)
            for crop in plan.batch(epoch * plan.batches_per_epoch + n)
        ]
        counts += np.bincount([crop.clip for crop in crops], minlength=57)
        orders.append(sorted((crop.clip, crop.start) for crop in crops))
        for group in (0, 1):
            assert np.ptp(counts[groups == group]) <= 1
    assert orders[0] != orders[1]
    # A function of the number alone.
    again = BatchPlan(np.full(57, 4.0), **SETTINGS, groups=groups, weights=(1.0, 1.0), seed=3)
    last = 4 * plan.batches_per_epoch - 1
    assert again.batch(last) == plan.batch(last)


def test_a_run_holds_out_and_fingerprints_by_source(tmp_path: Path) -> None:
    write_tones(tmp_path / "large", [2.0] * 30)
    write_tones(tmp_path / "small", [2.0])
    settings = DataSettings(**SETTINGS, held_out_seconds=60.0)

    def gathered(*sources: Any, seed: int = 0) -> Any:
        return gather_audio([f"{tmp_path}/{source}" for source in sources], settings, seed)

    mixes = [gathered("large:1", "small:0.5"), gathered("large:2", "small:1"), gathered("large:1", "small")]
    for mix in [*mixes, *(gathered("large:1", "small:1", seed=seed) for seed in range(1, 60))]:
        # The only clip of a source is not held out.
        assert mix.sources.tolist() == [0] * (len(mix.training) - 1) + [1]
        assert len(mix.held_out) > 0
    assert mixes[2].weights == (1.0, 1.0)
    plain = gathered("large", "small")
    assert plain.weights == ()
    assert len({each.fingerprint for each in (*mixes, plain)}) == 4
    write_tones(tmp_path / "short", [0.2, 0.3])
    with pytest.raises(
        SlimvoxError, match=r"^Nothing in `short` can be used, .* share in the mix: leave it out, "
    ):
        gathered("large:1", "short:1")
    assert len(gathered("large", "short").training) > 0
