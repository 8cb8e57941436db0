"""The latency table: linear in sizes, fitted without negative coefficients, measured on real encoders."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from drawn import anatomies, random_encoder
from measures import TABLE, expected_cost
from models import config
from nightly import examples
from slimvox.checkpoint.transformers_config import anatomy_from_config
from slimvox.costs import BLOCK_KINDS
from slimvox.measure.benchmark.blocks import REST, block_modules
from slimvox.measure.latency import LatencyTable, in_torch, measure_in_torch, real_time, real_time_factors
from slimvox.measure.latency import table as table_module
from slimvox.measure.latency.beside_dense import BESIDE_DENSE
from slimvox.measure.latency.in_torch import (
    FRONT_ENDS,
    PROBES,
    UNSEEN,
    Probe,
    drawn_anatomy,
)
from slimvox.measure.latency.table import feature_values, fit_times
from slimvox.pruning.gates import Gates
from slimvox.structures import Block, Term, structure_names
from slimvox.structures.anatomy import EncoderAnatomy
from slimvox.structures.parts import ConvAnatomy, HeadAnatomy, LayerAnatomy
from slimvox.structures.units import units
from slimvox.util.errors import SlimvoxError


def test_a_linear_law_is_found_again() -> None:
    draw = np.random.default_rng(0)
    terms = np.column_stack([np.ones(40), draw.uniform(1, 100, (40, 2))])
    law = np.array([5.0, 0.5, 2.0])
    assert fit_times(terms.tolist(), (terms @ law).tolist()) == pytest.approx(law)


def test_no_coefficient_is_negative() -> None:
    terms = [(1.0, 1.0), (1.0, 2.0), (1.0, 3.0)]
    constant, slope = fit_times(terms, [3.0, 2.0, 1.0])
    assert slope == 0.0 and 1.0 <= constant <= 3.0


def test_the_fit_has_the_smallest_relative_errors() -> None:
    draw = np.random.default_rng(1)
    terms = np.column_stack([np.ones(30), draw.uniform(1, 1e9, (30, 3))])
    times = terms @ [5.0, 1e-8, 0.0, 2e-8] * draw.uniform(0.8, 1.2, 30)

    def error(law: np.ndarray) -> float:
        return float(np.square(terms @ law / times - 1).sum())

    best = np.array(fit_times(terms.tolist(), times.tolist()))
    assert best.min() >= 0
    for _ in range(50):
        assert error(best) <= error(best * draw.uniform(0.99, 1.01, 4)) + 1e-12


@settings(max_examples=examples(25))
@given(anatomy=anatomies(), seed=st.integers(0, 1000))
def test_probes_are_parts_of_the_dense_encoder(anatomy, seed: int) -> None:  # type: ignore[no-untyped-def]
    part = drawn_anatomy(anatomy, np.random.default_rng(seed))
    random_encoder(part, seed)(torch.randn(1, 800))
    assert TABLE.of(part) <= TABLE.of(anatomy)


def test_expected_latency_is_that_of_expected_sizes() -> None:
    """Open gates cost what the whole encoder costs, and every gate has a gradient that says so."""
    anatomy = anatomy_from_config(config("wavlm").to_dict(), "test", normalize_waveform=False)
    gates = Gates(anatomy, structure_names())
    gates.log_alpha.data.fill_(30.0)
    expected = expected_cost(TABLE, anatomy, gates)
    assert float(expected.detach()) == pytest.approx(TABLE.of(anatomy), rel=1e-5)
    gates.log_alpha.data.fill_(1.0)
    expected_cost(TABLE, anatomy, gates).backward()
    assert gates.log_alpha.grad is not None and bool((gates.log_alpha.grad > 0).all())


def test_a_table_survives_json() -> None:
    assert LatencyTable.from_dict(json.loads(json.dumps(TABLE.to_dict()))) == TABLE


@pytest.mark.parametrize("wrong", [-1.0, math.nan, math.inf, None, "3", True])
@pytest.mark.parametrize("field", ["seconds", "rest", "error", "threads"])
def test_silly_numbers_in_a_table_are_refused(field: str, wrong: Any) -> None:
    with pytest.raises(ValueError, match=f"invalid latency table: `{field}` must be"):
        LatencyTable.from_dict({**TABLE.to_dict(), field: wrong})


@pytest.mark.parametrize("wrong", [-1.0, math.nan, math.inf, None, "1", True, [3.0]])
def test_silly_coefficients_in_a_table_are_refused(wrong: Any) -> None:
    times = {**TABLE.nanoseconds, "projection": {"constant": 1.0, "channels": wrong}}
    with pytest.raises(
        ValueError, match=r"`nanoseconds.projection.channels` must be (a finite number|at least 0)"
    ):
        LatencyTable.from_dict({**TABLE.to_dict(), "nanoseconds": times})


@pytest.mark.parametrize("wrong", [3.0, {"front_end": 3.0}, [], None])
def test_what_is_no_table_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="invalid latency table"):
        LatencyTable.from_dict({**TABLE.to_dict(), "nanoseconds": wrong})
    with pytest.raises(ValueError, match="invalid latency table"):
        LatencyTable.from_dict({"kind": "latency"})


def test_a_table_of_no_time_and_of_no_seconds_is_refused() -> None:
    nothing = {kind: dict.fromkeys(features, 0.0) for kind, features in TABLE.nanoseconds.items()}
    with pytest.raises(ValueError, match="a block must take some time"):
        LatencyTable.from_dict({**TABLE.to_dict(), "nanoseconds": nothing})
    with pytest.raises(ValueError, match="`seconds` must be above 0"):
        LatencyTable.from_dict({**TABLE.to_dict(), "seconds": 0.0})


def test_the_predicted_time_by_hand() -> None:
    """Each block of a tiny encoder: coefficients times terms, in nanoseconds."""
    head = HeadAnatomy(index=0, qk=2, vo=3)
    layer = LayerAnatomy(attention=True, heads=(head,), feed_forward=True, intermediate=5)
    gone = LayerAnatomy(attention=False, heads=(), feed_forward=False, intermediate=0)
    anatomy = replace(
        anatomy_from_config(config("hubert").to_dict(), "test", normalize_waveform=False),
        convolutions=(
            ConvAnatomy(channels=3, kernel=10, stride=5),
            ConvAnatomy(channels=2, kernel=3, stride=2),
            ConvAnatomy(channels=4, kernel=2, stride=2),
        ),
        layers=(layer, gone),
    )
    first, second, third = anatomy.conv_lengths(16_000)
    blocks = TABLE.by_block(anatomy).blocks
    work = 3 * 2 * 3 * second + 2 * 4 * 2 * third
    assert blocks[Block("front_end")] == pytest.approx(
        2e4 + 3.0 * (3 * first) + 9.0 * (2 * second + 4 * third) + 0.05 * work
    )
    assert blocks[Block("projection")] == pytest.approx(1e4 + 90.0 * 4)
    assert blocks[Block("position")] == 2e5 + 400.0 * anatomy.position_kernel + 1e5
    assert blocks[Block("attention", 0)] == pytest.approx(3e4 + 9e4 + 700.0 * (2 + 3))
    assert blocks[Block("feed_forward", 0)] == pytest.approx(2e4 + 800.0 * 5)
    assert blocks[Block("attention", 1)] == blocks[Block("feed_forward", 1)] == 0
    assert TABLE.of(anatomy) == round(sum(blocks.values()))


def test_what_cannot_be_measured_is_refused() -> None:
    anatomy = anatomy_from_config(config("hubert").to_dict(), "test", normalize_waveform=False)
    for seconds in (0.0, -1.0, math.nan, math.inf, 1e-3):
        with pytest.raises(SlimvoxError, match="must be finite and at least"):
            measure_in_torch(anatomy, seconds=seconds)
    encoder = random_encoder(anatomy, 0)
    for arguments in ({"rounds": 0}, {"seconds": 0.0}, {"seconds": math.nan}):
        with pytest.raises(ValueError, match="cannot be timed"):
            real_time_factors({"a": encoder}, **arguments)  # type: ignore[arg-type]
    for time in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="times must be finite and positive"):
            fit_times([(1.0,), (1.0,)], [1.0, time])


def test_measured_times_are_positive_and_complete() -> None:
    anatomy = anatomy_from_config(config("wavlm").to_dict(), "test", normalize_waveform=False)
    table = measure_in_torch(anatomy, seconds=0.5)
    assert table.seconds == 0.5 and table.threads == torch.get_num_threads()
    assert table.error >= 0 and table.rest >= 0
    assert set(table.nanoseconds) == set(BLOCK_KINDS)
    for kind, coefficients in table.nanoseconds.items():
        assert min(coefficients.values()) >= 0 and max(coefficients.values()) > 0, kind
    assert table.of(anatomy) == round(table.by_block(anatomy).total) > 0


def test_real_time_factors_cover_every_encoder() -> None:
    anatomy = anatomy_from_config(config("hubert").to_dict(), "test", normalize_waveform=False)
    encoders = {name: random_encoder(anatomy, seed) for seed, name in enumerate(("a", "b"))}
    factors = real_time_factors(encoders, seconds=0.5, rounds=2)
    assert set(factors) == {"a", "b"} and min(factors.values()) > 0


def test_real_time_factors_are_compared_within_a_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine is slow in one round, and the second encoder is disturbed in another."""
    anatomy = anatomy_from_config(config("hubert").to_dict(), "test", normalize_waveform=False)
    encoders = {name: random_encoder(anatomy, seed) for seed, name in enumerate(("dense", "pruned"))}
    times = {"dense": [4.0, 12.0, 4.4], "pruned": [2.0, 6.0, 8.0]}
    monkeypatch.setattr(real_time, "seconds_in_turns", lambda calls, rounds, device: times)
    assert real_time_factors(encoders, seconds=2.0, rounds=3) == pytest.approx({"dense": 2.2, "pruned": 1.1})


def test_a_table_is_scaled_to_pruned_encoders() -> None:
    """Odd widths take a fifth longer than the coefficients say, and the dense encoder does not."""
    dense = anatomy_from_config(config("wavlm").to_dict(), "test", normalize_waveform=False)
    draw = np.random.default_rng(3)
    parts = [drawn_anatomy(dense, draw) for _ in range(8)]
    times = [(dense, float(TABLE.of(dense))), *((part, 1.2 * TABLE.of(part)) for part in parts)]
    assert TABLE.speed_up_error(times) == pytest.approx(0.2, abs=1e-4)
    table = TABLE.scaled_to([times[0], *times[1:5], (parts[4], 9 * times[5][1])])
    assert table.speed_up_error([times[0], *times[5:]]) < 1e-4
    assert table.of_dense(dense) == TABLE.of(dense) < table.of(dense)
    # Far from the encoders that were timed too.
    small = replace(dense, layers=())
    assert table.of(small) == pytest.approx(1.2 * TABLE.of(small), rel=1e-4)
    assert LatencyTable.from_dict(table.to_dict()) == table


def test_a_feature_that_counts_once_is_fitted_as_it_is_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    dense = anatomy_from_config(config("wavlm").to_dict(), "test", normalize_waveform=False)
    block = Block("attention", 0)
    heads = next(address for address in units(dense).sizes if address.structure == "head")
    term = Term(block=block, coefficient=3.0, factors=(heads,), once=True, feature="any head")
    monkeypatch.setattr(table_module, "time_features", lambda *_: iter([term]))
    table = replace(TABLE, nanoseconds={"attention": {"any head": 2.0}}, rest=0.0)
    (value,) = feature_values(dense, 1.0)[block].values()
    assert value == 3.0 and table.of(dense) == 2.0 * value


def test_probes_are_measured_beside_the_dense_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine becomes slower with every group of encoders, and is disturbed once in each."""
    dense = anatomy_from_config(config("wavlm").to_dict(), "test", normalize_waveform=False)
    draw = np.random.default_rng(3)
    anatomies = [drawn_anatomy(dense, draw) for _ in range(6)]
    groups: list[int] = []

    def known(calls: Mapping[str, Any], rounds: int, _: torch.device) -> dict[str, list[float]]:
        groups.append(len(calls))
        times = {}
        for name, call in calls.items():
            slow = [len(groups)] * rounds
            if not name.startswith("dense"):
                slow[len(times) % rounds] = 9
            times[name] = [1e-9 * each * TABLE.of(call.func.anatomy) for each in slow]
        return times

    monkeypatch.setattr(in_torch, "seconds_in_turns", known)
    probes, nanoseconds = in_torch._measured_probes(dense, anatomies, torch.zeros(1, 8000), 5)
    assert groups == [1 + BESIDE_DENSE, 3]
    assert nanoseconds == pytest.approx(1.5 * TABLE.of(dense))
    assert [probe.anatomy for probe in probes] == anatomies
    for probe in probes:
        assert probe.total == pytest.approx(1.5 * TABLE.of(probe.anatomy))
        blocks = {block for block, _ in block_modules(random_encoder(probe.anatomy, 0))}
        assert probe.blocks.keys() == {*blocks, REST}
        assert min(probe.blocks.values()) >= 0


def test_a_table_has_the_measured_time_of_the_dense_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unseen encoders take half as long again as the fitted ones tell."""
    dense = anatomy_from_config(config("wavlm").to_dict(), "test", normalize_waveform=False)
    given: list[EncoderAnatomy] = []

    def known(
        whole: EncoderAnatomy, anatomies: Sequence[EncoderAnatomy], *_: Any
    ) -> tuple[list[Probe], float]:
        assert whole == dense
        given.extend(anatomies)
        probes = []
        for number, anatomy in enumerate(anatomies):
            factor = 1.5 if PROBES - UNSEEN <= number < PROBES else 1.0
            blocks = {**TABLE.by_block(anatomy).blocks, REST: TABLE.rest}
            blocks[Block("position")] -= TABLE.rest
            scaled = {block: factor * cost for block, cost in blocks.items()}
            probes.append(Probe(anatomy=anatomy, blocks=scaled))
        return probes, 2.0 * TABLE.of(dense)

    monkeypatch.setattr(in_torch, "_measured_probes", known)
    table = measure_in_torch(dense, seconds=TABLE.seconds)
    assert table.of_dense(dense) == 2 * TABLE.of(dense)
    assert table.error == pytest.approx(0.5, abs=0.05)
    assert len(given) == PROBES + FRONT_ENDS and sum(not each.layers for each in given) == FRONT_ENDS
