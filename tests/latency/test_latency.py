"""The latency table: linear in sizes, fitted without negative coefficients, measured on real encoders."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from drawn import anatomies, random_encoder
from measures import TABLE, expected_cost
from models import config
from nightly import examples
from slimvox.checkpoint.transformers_reader import anatomy_from_config
from slimvox.costs import BLOCK_KINDS
from slimvox.gates import Gates
from slimvox.latency import LatencyTable, measure_latency, real_time_factors
from slimvox.latency.fit import fit_times
from slimvox.latency.measure import drawn_anatomy
from slimvox.structures import structure_names


def test_a_linear_law_is_found_again() -> None:
    draw = np.random.default_rng(0)
    terms = np.column_stack([np.ones(40), draw.uniform(1, 100, (40, 2))])
    law = np.array([5.0, 0.5, 2.0])
    assert fit_times(terms.tolist(), (terms @ law).tolist()) == pytest.approx(law)


def test_no_coefficient_is_negative() -> None:
    terms = [(1.0, 1.0), (1.0, 2.0), (1.0, 3.0)]
    constant, slope = fit_times(terms, [3.0, 2.0, 1.0])
    assert slope == 0.0 and 1.0 <= constant <= 3.0


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


def test_measured_times_are_positive_and_complete() -> None:
    anatomy = anatomy_from_config(config("wavlm").to_dict(), "test", normalize_waveform=False)
    table = measure_latency(anatomy, seconds=0.5)
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
