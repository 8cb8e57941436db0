"""Latency tables of runtimes that time whole encoders only, and tables that are kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from measures import TABLE
from models import config
from slimvox.checkpoint.transformers_config import anatomy_from_config
from slimvox.costs import CostContext
from slimvox.encoder import SpeechEncoder
from slimvox.measure.latency import in_runtime, kept_table, measure_in_runtime, prepare
from slimvox.measure.latency.in_torch import drawn_anatomy
from slimvox.measure.latency.prepare import table_path
from slimvox.measure.latency.table import LatencyTable, fit_times
from slimvox.structures.anatomy import EncoderAnatomy

DENSE = anatomy_from_config(config("wavlm").to_dict(), "test", normalize_waveform=False)


@pytest.mark.parametrize("shared", [0.0, 0.4])
def test_times_of_whole_encoders_tell_those_of_their_parts(
    shared: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A runtime that takes as long as a table says, but for the dense encoder less, and is now and then delayed.

    A part of the dense encoder's time is `shared` by all layers, as the computation of WavLM's position bias.
    """

    def of(anatomy: EncoderAnatomy) -> float:
        return TABLE.of(anatomy) + shared * TABLE.of(DENSE) * bool(anatomy.layers)

    asked: list[tuple[str, float]] = []

    def known(
        encoders: Mapping[str, SpeechEncoder], *, backend: str, seconds: float, **_: Any
    ) -> dict[str, tuple[float, ...]]:
        asked.append((backend, seconds))
        times = {name: of(encoder.anatomy) / 1e6 for name, encoder in encoders.items()}
        times = {name: 0.8 * time if name.startswith("dense") else time for name, time in times.items()}
        return {name: delayed(name, time) for name, time in times.items()}

    def delayed(name: str, time: float) -> tuple[float, ...]:
        return tuple(3 * time if round == len(name) % 3 else time for round in range(3))

    monkeypatch.setattr(in_runtime, "encoder_milliseconds", known)
    # In torch everything takes thrice as long, but the layers share a little less.
    rest = 3 * (TABLE.rest + 0.9 * shared * TABLE.of(DENSE))

    def in_torch(dense: EncoderAnatomy, *, seconds: float, seed: int) -> LatencyTable:
        assert dense == DENSE and seconds == TABLE.seconds
        return replace(TABLE, nanoseconds=tripled(), rest=rest, error=0.0)

    monkeypatch.setattr(in_runtime, "measure_in_torch", in_torch)
    table = measure_in_runtime(DENSE, "openvino", seconds=TABLE.seconds)
    assert asked == [("openvino", TABLE.seconds)] * 2 and table.runtime == "openvino"
    assert table.of_dense(DENSE) == pytest.approx(0.8 * of(DENSE), rel=1e-6)
    assert table.error < 0.01
    draw = np.random.default_rng(5)
    for _ in range(10):
        part = drawn_anatomy(DENSE, draw)
        assert table.of(part) == pytest.approx(of(part), rel=0.02)
    assert table.describe(2e6) == "2 ms for 1 s of audio in openvino"
    assert LatencyTable.from_dict(table.to_dict()) == table


def tripled() -> dict[str, dict[str, float]]:
    return {
        kind: {feature: 3 * value for feature, value in each.items()}
        for kind, each in TABLE.nanoseconds.items()
    }


def test_a_prior_decides_on_what_measurements_do_not_tell() -> None:
    """The first two terms always occur together, the third has times of its own."""
    terms = [[1.0, 1.0, 1.0], [2.0, 2.0, 1.0], [1.0, 1.0, 8.0], [3.0, 3.0, 2.0]] * 6
    times = [sum(each) for each in (((3.0 * a), b, 5.0 * c) for a, b, c in terms)]
    for size in (1.0, 1e6):
        first, second, third = fit_times(terms, times, [3.0 * size, 1.0 * size, 5.0 * size])
        assert (first, second, third) == pytest.approx((3.0, 1.0, 5.0))
    first, second, third = fit_times(terms, times, [2.0, 2.0, 10.0])
    assert first == pytest.approx(second, rel=0.05)
    assert first + second == pytest.approx(4.0, rel=0.05) and third == pytest.approx(5.0, rel=0.05)
    absent = fit_times(terms, times, [4.0, 0.0, 5.0])
    assert absent[1] < 0.1 * absent[0]


def test_a_table_is_measured_in_torch_bf16() -> None:
    lines: list[str] = []
    table = measure_in_runtime(DENSE, "torch-bf16", seconds=0.5, on_progress=lines.append)
    assert table.of(DENSE) > 0 and table.threads == torch.get_num_threads()
    assert lines == [
        f"{number} of {len(lines)} encoders are ready to be timed in torch-bf16"
        for number in range(1, len(lines) + 1)
    ]


def test_a_run_tells_now_and_then_how_far_the_measurement_is(monkeypatch: pytest.MonkeyPatch) -> None:
    now, lines = 0.0, []

    def measured(*_: Any, on_progress: Callable[[str], None], **__: Any) -> LatencyTable:
        nonlocal now
        for number in range(1, 9):
            now += 13.0
            on_progress(f"{number} of 8")
        return TABLE

    monkeypatch.setattr(prepare.time, "monotonic", lambda: now)
    monkeypatch.setattr(prepare, "measured_table", measured)
    context = CostContext(
        dense=DENSE, seconds=1.0, device=torch.device("cpu"), on_progress=lines.append, runtime="openvino"
    )
    assert prepare._measure(context) == TABLE
    assert lines[0].startswith("measuring how long") and lines[1:] == ["3 of 8", "6 of 8"]


def test_a_table_is_measured_once_for_the_same_conditions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLIMVOX_CACHE", str(tmp_path))
    said: list[str] = []
    context = CostContext(
        dense=DENSE, seconds=1.0, device=torch.device("cpu"), on_progress=said.append, runtime="onnx"
    )
    measured: list[CostContext] = []

    def measure(given: CostContext) -> LatencyTable:
        measured.append(given)
        return replace(TABLE, rest=float(len(measured)))

    first = kept_table(context, measure)
    assert kept_table(context, measure) == first and len(measured) == 1
    assert any(str(table_path(context)) in line for line in said)
    shorter = replace(DENSE, layers=DENSE.layers[:1])
    for other in (
        replace(context, runtime="openvino"),
        replace(context, seconds=2.0),
        replace(context, dense=shorter),
    ):
        assert kept_table(other, measure) != first
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        assert kept_table(context, measure) != first
    finally:
        torch.set_num_threads(threads)
    assert len(measured) == 5
    table_path(context).write_text('{"table": {"seconds": 1}}')
    assert kept_table(context, measure).rest == 6.0
    assert kept_table(context, measure).rest == 6.0


def test_a_table_measured_on_a_busy_machine_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLIMVOX_CACHE", str(tmp_path))
    said: list[str] = []
    context = CostContext(dense=DENSE, seconds=1.0, device=torch.device("cpu"), on_progress=said.append)
    busy = replace(TABLE, error=2.37)
    assert kept_table(context, lambda _: busy) == busy
    assert len(said) == 1 and "not kept" in said[0] and "busy" in busy.summary(DENSE)
    assert kept_table(context, lambda _: TABLE) == TABLE
    assert kept_table(context, lambda _: busy) == TABLE


def test_torch_decides_what_unsteady_times_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times of single encoders are off by a tenth; sizes that they do not determine keep torch's proportions."""
    draw = np.random.default_rng(1)

    def unsteady(encoders: Mapping[str, SpeechEncoder], **_: Any) -> dict[str, tuple[float, ...]]:
        return {
            name: (
                TABLE.of(encoder.anatomy) * (1.0 if name.startswith("dense") else draw.lognormal(sigma=0.1)),
            )
            for name, encoder in encoders.items()
        }

    monkeypatch.setattr(in_runtime, "encoder_milliseconds", unsteady)
    monkeypatch.setattr(
        in_runtime, "measure_in_torch", lambda *_, **__: replace(TABLE, nanoseconds=tripled())
    )
    tables = [measure_in_runtime(DENSE, "openvino", seconds=TABLE.seconds, seed=seed) for seed in range(4)]
    fewer_heads = replace(
        DENSE, layers=tuple(replace(layer, heads=layer.heads[:1]) for layer in DENSE.layers)
    )
    thinner = replace(DENSE, layers=tuple(replace(layer, intermediate=2) for layer in DENSE.layers))
    for part in (fewer_heads, thinner):
        saved = TABLE.of(DENSE) / TABLE.of(part)
        errors = [table.of(DENSE) / table.of(part) / saved - 1 for table in tables]
        assert np.mean(np.abs(errors)) < 0.04, errors
