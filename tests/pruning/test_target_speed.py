"""`target_speed`: the latency table of a run, its budget, and what happens to both when it is interrupted."""

from __future__ import annotations

import io
import json
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import slimvox
from measures import TABLE
from slimvox.cli.main import main
from slimvox.cli.tables import sizes_summary
from slimvox.measure.latency import prepare
from slimvox.measure.latency.file import write_table
from slimvox.pruning import machine_speed, stage
from slimvox.pruning.checked_files import read_checked_json
from slimvox.pruning.interrupts import RunInterrupted

SETTINGS = ["data.seconds_per_batch=3.0", "data.min_seconds=0.5", "data.max_seconds=1.0", "target.seconds=1"]


def run(
    teacher: Path,
    speech: Path,
    out: Path,
    speed: str | None = "2x",
    runtime: str | None = None,
    latency_table: Path | None = None,
    overrides: list[str] | None = None,
    sizes: str | None = None,
) -> slimvox.PruneResult:
    return slimvox.prune(
        teacher,
        speech,
        out,
        recipe="quick",
        overrides=[*SETTINGS, *(overrides or [])],
        target_speed=speed,
        runtime=runtime,
        latency_table=latency_table,
        sizes=sizes,
        max_steps=4,
        device="cpu",
    )


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Any:
    """In place of measuring: a machine whose table is known."""
    monkeypatch.setattr(prepare, "kept_table", lambda *_: TABLE)
    return TABLE


def test_the_predicted_latency_meets_the_target(
    table: Any, teacher: Path, speech: Path, tmp_path: Path
) -> None:
    result = run(teacher, speech, tmp_path / "out")
    dense, pruned = result.encoder.dense_anatomy, result.encoder.anatomy
    assert 0.9 * table.of(dense) / 2 <= table.of(pruned) <= table.of(dense) / 2
    assert result.speed_up is not None and result.speed_up > 0
    assert result.predicted_speed_up == table.of(dense) / table.of(pruned)
    assert read_checked_json(tmp_path / "out" / "run" / "cost.json") == json.loads(
        json.dumps(table.to_dict())
    )
    assert "measured speed" in (tmp_path / "out" / "README.md").read_text()


def test_the_target_is_a_share_of_the_measured_time_of_the_dense_encoder(
    teacher: Path, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is faster than the coefficients, which are those of pruned encoders, say."""
    monkeypatch.setattr(
        prepare, "kept_table", lambda context, _: replace(TABLE, dense=0.85 * TABLE.of(context.dense))
    )
    result = run(teacher, speech, tmp_path / "out", speed="1.7x")
    target = 0.85 * TABLE.of(result.encoder.dense_anatomy) / 1.7
    assert 0.95 * target <= TABLE.of(result.encoder.anatomy) <= target


def test_a_resumed_run_goes_on_with_its_first_table(
    table: Any, teacher: Path, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine may be busier by then: another table would be another target."""
    train_step = stage.Stage._train_step

    def interrupting(self: stage.Stage, batches: Any) -> Any:
        signal.raise_signal(signal.SIGINT)
        return train_step(self, batches)

    with monkeypatch.context() as patch:
        patch.setattr(stage.Stage, "_train_step", interrupting)
        with pytest.raises(RunInterrupted):
            run(teacher, speech, tmp_path / "out")
    other = replace(TABLE, rest=10 * TABLE.rest)
    monkeypatch.setattr(prepare, "kept_table", lambda *_: other)
    resumed = run(teacher, speech, tmp_path / "out")
    monkeypatch.setattr(prepare, "kept_table", lambda *_: TABLE)
    whole = run(teacher, speech, tmp_path / "whole")
    assert resumed.encoder.anatomy == whole.encoder.anatomy
    for name, weights in whole.encoder.state_dict().items():
        assert torch.equal(weights, resumed.encoder.state_dict()[name])


@pytest.mark.parametrize(
    ("speed", "message"),
    [
        ("1000x", "cannot be reached: the largest speed-up with the structures chosen is .*x"),
        ("0.5x", "speed-up above 1"),
        ("fast", "such as 4x"),
    ],
)
def test_a_speed_out_of_reach_is_one_sentence(
    speed: str, message: str, table: Any, teacher: Path, speech: Path, tmp_path: Path
) -> None:
    with pytest.raises(slimvox.SlimvoxError, match=message):
        run(teacher, speech, tmp_path / "out", speed)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_speed": "2x", "runtime": "abacus"}, "abacus"),
        ({"target_macs": "50%", "runtime": "onnx"}, "`target.runtime` is for a target in time"),
        ({"target_speed": "2x", "runtime": "openvino-bf16"}, r"slimvox\[openvino\]"),
    ],
)
def test_a_runtime_that_cannot_be_used_is_one_sentence(
    options: dict[str, str],
    message: str,
    teacher: Path,
    speech: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(slimvox.SlimvoxError, match=message):
        slimvox.prune(teacher, speech, tmp_path / "out", recipe="quick", device="cpu", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_the_target_is_a_speed_in_the_runtime_that_was_asked_for(
    teacher: Path, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def table(context: Any, _: Any) -> Any:
        asked.append(context.runtime)
        return replace(TABLE, runtime=context.runtime)

    def milliseconds(encoders: Any, *, backend: str, **_: Any) -> dict[str, tuple[float, ...]]:
        asked.append(backend)
        return {"dense": (3.0, 90.0, 3.0), "pruned": (1.0, 1.0, 80.0)}

    monkeypatch.setattr(prepare, "kept_table", table)
    monkeypatch.setattr(machine_speed, "encoder_milliseconds", milliseconds)
    result = run(teacher, speech, tmp_path / "out", runtime="torch-bf16")
    assert asked == ["torch-bf16", "torch-bf16"] and result.speed_up == 3.0
    assert read_checked_json(tmp_path / "out" / "run" / "cost.json")["runtime"] == "torch-bf16"


@pytest.fixture
def elsewhere(tmp_path: Path, teacher: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table from another machine; measuring this one is an error."""

    def measured(*_: Any) -> Any:
        raise AssertionError("this machine was measured")

    monkeypatch.setattr(prepare, "kept_table", measured)
    table = replace(TABLE, hardware="Abacus", runtime="openvino-int8", threads=3)
    write_table(tmp_path / "abacus.json", table, slimvox.load(teacher).dense_anatomy)
    return tmp_path / "abacus.json"


def test_a_table_of_another_machine_is_the_target(
    elsewhere: Path, teacher: Path, speech: Path, tmp_path: Path
) -> None:
    result = run(teacher, speech, tmp_path / "out", latency_table=elsewhere)
    dense, pruned = result.encoder.dense_anatomy, result.encoder.anatomy
    assert 0.9 * TABLE.of(dense) / 2 <= TABLE.of(pruned) <= TABLE.of(dense) / 2
    assert result.speed_up is None
    assert result.predicted_speed_up == TABLE.of(dense) / TABLE.of(pruned) >= 2
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["run"]["recipe"]["target"]["runtime"] == "openvino-int8"
    card = (tmp_path / "out" / "README.md").read_text()
    assert "openvino-int8, 3 threads of Abacus, 1 s of audio" in card and "measured speed" not in card
    again = run(teacher, speech, tmp_path / "out", latency_table=elsewhere)
    assert again.predicted_speed_up == result.predicted_speed_up


def test_a_table_of_this_machine_is_measured_against_with_its_threads(
    elsewhere: Path, teacher: Path, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int, float]] = []

    def milliseconds(
        encoders: Any, *, backend: str, threads: int, seconds: float
    ) -> dict[str, tuple[float, ...]]:
        asked.append((backend, threads, seconds))
        return {"dense": (9.0,), "pruned": (3.0,)}

    monkeypatch.setattr(machine_speed, "place_of", lambda device: "Abacus")
    monkeypatch.setattr(machine_speed, "encoder_milliseconds", milliseconds)
    assert run(teacher, speech, tmp_path / "out", latency_table=elsewhere).speed_up == 3.0
    assert asked == [("openvino-int8", 3, 1.0)]


def test_a_table_of_this_machine_in_torch_is_measured_with_its_threads(
    elsewhere: Path, teacher: Path, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, float]] = []

    def factors(encoders: Any, *, seconds: float) -> dict[str, float]:
        asked.append((torch.get_num_threads(), seconds))
        return {"dense": 0.5, "pruned": 0.2}

    before = torch.get_num_threads()
    monkeypatch.setattr(machine_speed, "place_of", lambda device: "Abacus")
    monkeypatch.setattr(machine_speed, "real_time_factors", factors)
    table = replace(TABLE, hardware="Abacus", threads=before + 1)
    write_table(elsewhere, table, slimvox.load(teacher).dense_anatomy)
    result = run(teacher, speech, tmp_path / "out", latency_table=elsewhere)
    assert result.speed_up == 2.5 and asked == [(before + 1, 1.0)]
    assert torch.get_num_threads() == before
    outcome = json.loads((tmp_path / "out" / "run" / "outcome.json").read_text())
    assert outcome["predicted_speed_up"] == result.predicted_speed_up
    assert outcome["predicted_for"] == result.predicted_for == table.place
    # The same settings as without the table, so that the run can be resumed without it.
    assert run(teacher, speech, tmp_path / "out").speed_up == 2.5


def test_a_runtime_that_is_not_here_does_not_lose_the_run(
    elsewhere: Path, teacher: Path, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_speed, "place_of", lambda device: "Abacus")
    monkeypatch.setitem(sys.modules, "openvino", None)
    result = run(teacher, speech, tmp_path / "out", latency_table=elsewhere)
    assert result.speed_up is None and result.predicted_speed_up is not None


def test_a_started_run_does_not_need_the_file_any_more(
    elsewhere: Path, teacher: Path, speech: Path, tmp_path: Path
) -> None:
    first = run(teacher, speech, tmp_path / "out", latency_table=elsewhere)
    elsewhere.unlink()
    again = run(teacher, speech, tmp_path / "out", latency_table=elsewhere)
    assert again.predicted_speed_up == first.predicted_speed_up


def test_a_replaced_cost_is_asked_with_the_table(
    elsewhere: Path, teacher: Path, speech: Path, tmp_path: Path
) -> None:
    asked: list[Any] = []

    class Doubled(slimvox.Pruner):
        def build_cost(self, kind: str, context: Any) -> Any:
            asked.append(context.given.hardware)
            return replace(super().build_cost(kind, context), hardware="two of them")

    pruner = Doubled(
        teacher,
        speech,
        tmp_path / "out",
        recipe="quick",
        overrides=SETTINGS,
        target_speed="2x",
        latency_table=elsewhere,
        max_steps=4,
        device="cpu",
    )
    assert "two of them" in (pruner.run().predicted_for or "") and asked == ["Abacus"]


def test_a_table_of_a_gpu_is_not_compared_with_this_cpu(
    elsewhere: Path, teacher: Path, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(machine_speed, "place_of", lambda device: "Abacus")
    written = json.loads(elsewhere.read_text())
    written["table"].update(device="cuda", runtime="torch")
    elsewhere.write_text(json.dumps(written))
    assert run(teacher, speech, tmp_path / "out", latency_table=elsewhere).speed_up is None


def test_sizes_can_be_shares_of_the_time_elsewhere(
    elsewhere: Path, teacher: Path, speech: Path, tmp_path: Path
) -> None:
    result = run(
        teacher,
        speech,
        tmp_path / "out",
        speed=None,
        latency_table=elsewhere,
        sizes="60%,40%",
        overrides=["target.kind=latency"],
    )
    printed = io.StringIO()
    sizes_summary(Console(file=printed, width=120), result.sizes)
    assert "predicted speed" in printed.getvalue()
    assert f"{result.sizes[1].predicted_speed_up:.2f}x" in printed.getvalue()
    for size, share in zip(result.sizes, (0.6, 0.4), strict=True):
        assert size.predicted_speed_up == pytest.approx(1 / share, rel=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"speed": None},
            "`latency_table` needs a target in time: `target_speed`, or target.kind=latency for `sizes`",
        ),
        ({"runtime": "onnx"}, "was measured in openvino-int8: leave out the runtime onnx"),
        ({"latency_table": Path("no-such.json")}, "no-such.json cannot be read"),
        (
            {"speed": None, "overrides": ["target.kind=latency", "target.keep=0.001"]},
            "the target of 1,000x cannot be reached: the largest speed-up",
        ),
    ],
)
def test_a_table_that_cannot_be_used_is_one_sentence(
    options: dict[str, Any], message: str, elsewhere: Path, teacher: Path, speech: Path, tmp_path: Path
) -> None:
    with pytest.raises(slimvox.SlimvoxError, match=message):
        run(teacher, speech, tmp_path / "out", **{"latency_table": elsewhere, **options})
    assert not (tmp_path / "out").exists()


def test_the_table_of_a_run_repeats_it_elsewhere(
    table: Any, teacher: Path, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(teacher, speech, tmp_path / "here")
    monkeypatch.setattr(prepare, "kept_table", lambda *_: replace(TABLE, rest=10 * TABLE.rest))
    kept = tmp_path / "here" / "run" / "latency_table.json"
    second = run(teacher, speech, tmp_path / "elsewhere", latency_table=kept)
    assert second.encoder.anatomy == first.encoder.anatomy
    assert run(teacher, speech, tmp_path / "without").encoder.anatomy != first.encoder.anatomy


def test_a_run_is_not_resumed_with_another_table(
    elsewhere: Path, teacher: Path, speech: Path, tmp_path: Path
) -> None:
    run(teacher, speech, tmp_path / "out", latency_table=elsewhere)
    write_table(elsewhere, replace(TABLE, rest=10 * TABLE.rest), slimvox.load(teacher).dense_anatomy)
    with pytest.raises(slimvox.SlimvoxError, match="another"):
        run(teacher, speech, tmp_path / "out", latency_table=elsewhere)


def test_the_summary_says_that_a_speed_is_predicted(
    elsewhere: Path, teacher: Path, speech: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["prune", str(teacher), str(speech), "--out", str(tmp_path / "out"), "--recipe", "quick"]
    options = [
        "--target-speed",
        "2x",
        "--latency-table",
        str(elsewhere),
        "--max-steps",
        "4",
        "--device",
        "cpu",
    ]
    with pytest.raises(SystemExit) as left:
        main([*command, *options, "--set", *SETTINGS])
    assert left.value.code == 0
    assert (
        "predicted for openvino-int8, 3 threads of Abacus; not measured on this machine"
        in capsys.readouterr().out
    )
