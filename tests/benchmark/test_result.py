"""Results of the benchmark: speed-ups, JSON and tables."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from slimvox.cli.benchmark import print_benchmark
from slimvox.measure.benchmark import BenchmarkResult, Measurement
from slimvox.measure.benchmark.result import ContenderReport


def result_with(
    milliseconds: dict[str, list[float]],
    *,
    dense: dict[str, str] | None = None,
    reference: str = "dense",
    joules: float | None = None,
) -> BenchmarkResult:
    """A result with times by label; `dense` gives the labels of dense counterparts."""
    return BenchmarkResult(
        machine={"processor": "P", "torch": "2", "threads": 1, "device": "cpu"},
        reference=reference,
        block_seconds=10.0,
        contenders=tuple(
            ContenderReport(
                label=label,
                model=label,
                backend=label.rpartition(", ")[2],
                parameters=94_371_712,
                macs_10s=74_123_456_789,
                dense=(dense or {}).get(label),
                file_bytes=377_000_000,
                import_seconds=0.1,
                load_seconds=0.1,
                first_call_seconds=0.1,
                peak_memory_bytes=1 << 30,
                blocks=None,
            )
            for label in milliseconds
        ),
        measurements=tuple(
            Measurement(
                label=label, batch=2, seconds=5.0, threads=1, milliseconds=tuple(times), joules=joules
            )
            for label, times in milliseconds.items()
        ),
    )


def pruned_result(joules: float | None = None) -> BenchmarkResult:
    return result_with(
        {
            "small dense, transformers": [120_000.0],
            "small dense, openvino-bf16": [40_000.0],
            "small, openvino-bf16": [10_000.0],
        },
        dense=dict.fromkeys(
            ("small dense, openvino-bf16", "small, openvino-bf16"), "small dense, openvino-bf16"
        ),
        reference="small dense, transformers",
        joules=joules,
    )


def test_the_gain_from_the_runtime_and_that_from_pruning() -> None:
    result = pruned_result()
    reference, dense, small = result.measurements
    assert (result.by_runtime(dense), result.by_pruning(dense)) == (3.0, 1.0)
    assert (result.by_runtime(small), result.by_pruning(small)) == (3.0, 4.0)
    assert result.speedup(small) == 12.0
    assert result.by_runtime(reference) is None and result.by_pruning(reference) is None


@pytest.mark.parametrize("joules", [None, 1234.5])
def test_results_are_read_from_the_json_that_was_written(joules: float | None) -> None:
    result = pruned_result(joules)
    assert BenchmarkResult.from_dict(json.loads(json.dumps(result.to_dict()))) == result


@pytest.mark.parametrize("joules", [None, 1234.5])
@pytest.mark.parametrize("width", [80, 120])
def test_tables_keep_all_words_in_narrow_terminals(width: int, joules: float | None) -> None:
    result = pruned_result(joules)
    file = io.StringIO()
    print_benchmark(Console(file=file, width=width), result)
    lines = file.getvalue().splitlines()
    assert "…" not in file.getvalue()
    tables = "\n".join(line for line in lines if len(line) <= width)
    for word in ("speed-up", "runtime", "pruning", "1st call", "memory", "12.00x", "3.00x", "4.00x"):
        assert word in tables, word
    for label in (each.label for each in result.contenders):
        assert all(tables.count(word) >= 2 for word in label.split()), (
            "in the tables of times and of processes"
        )
    assert ("1.23e+03" in tables) == (joules is not None)
    assert ("energy is not available" in file.getvalue()) == (joules is None)


def test_speed_ups_are_ratios_of_medians() -> None:
    result = result_with({"dense": [100.0, 200.0, 5000.0], "small": [90.0, 50.0, 10.0], "large": [300.0] * 3})
    dense, small, large = result.measurements
    assert result.speedup(small) == pytest.approx(4.0)
    assert result.slower() == [large]
    assert dense.real_time_factor == pytest.approx(0.02)
    assert small.spread == pytest.approx((70 - 30) / 2 / 50)
