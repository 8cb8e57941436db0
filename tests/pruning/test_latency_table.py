"""`latency_table`: a target in time on the machine that the table was measured on."""

from __future__ import annotations

import io
import json
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
from slimvox.pruning import machine_speed
from speed_runs import SHORT_CLIPS, prune_for_speed


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
    result = prune_for_speed(teacher, speech, tmp_path / "out", latency_table=elsewhere)
    dense, pruned = result.encoder.dense_anatomy, result.encoder.anatomy
    assert 0.9 * TABLE.of(dense) / 2 <= TABLE.of(pruned) <= TABLE.of(dense) / 2
    assert result.speed_up is None
    assert result.predicted_speed_up == TABLE.of(dense) / TABLE.of(pruned) >= 2
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["run"]["recipe"]["target"]["runtime"] == "openvino-int8"
    card = (tmp_path / "out" / "README.md").read_text()
    assert "openvino-int8, 3 threads of Abacus, 1 s of audio" in card and "measured speed" not in card
    again = prune_for_speed(teacher, speech, tmp_path / "out", latency_table=elsewhere)
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
    assert prune_for_speed(teacher, speech, tmp_path / "out", latency_table=elsewhere).speed_up == 3.0
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
    result = prune_for_speed(teacher, speech, tmp_path / "out", latency_table=elsewhere)
    assert result.speed_up == 2.5 and asked == [(before + 1, 1.0)]
    assert torch.get_num_threads() == before
    outcome = json.loads((tmp_path / "out" / "run" / "outcome.json").read_text())
    assert outcome["predicted_speed_up"] == result.predicted_speed_up
    assert outcome["predicted_for"] == result.predicted_for == table.place
    # The same settings as without the table, so that the run can be resumed without it.
    assert prune_for_speed(teacher, speech, tmp_path / "out").speed_up == 2.5


def test_a_runtime_that_is_not_here_does_not_lose_the_run(
    elsewhere: Path, teacher: Path, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_speed, "place_of", lambda device: "Abacus")
    monkeypatch.setitem(sys.modules, "openvino", None)
    result = prune_for_speed(teacher, speech, tmp_path / "out", latency_table=elsewhere)
    assert result.speed_up is None and result.predicted_speed_up is not None


def test_a_started_run_does_not_need_the_file_any_more(
    elsewhere: Path, teacher: Path, speech: Path, tmp_path: Path
) -> None:
    first = prune_for_speed(teacher, speech, tmp_path / "out", latency_table=elsewhere)
    elsewhere.unlink()
    again = prune_for_speed(teacher, speech, tmp_path / "out", latency_table=elsewhere)
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
        overrides=SHORT_CLIPS,
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
    assert prune_for_speed(teacher, speech, tmp_path / "out", latency_table=elsewhere).speed_up is None


def test_sizes_can_be_shares_of_the_time_elsewhere(
    elsewhere: Path, teacher: Path, speech: Path, tmp_path: Path
) -> None:
    result = prune_for_speed(
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
        prune_for_speed(teacher, speech, tmp_path / "out", **{"latency_table": elsewhere, **options})
    assert not (tmp_path / "out").exists()


def test_the_table_of_a_run_repeats_it_elsewhere(
    table: Any, teacher: Path, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prune_for_speed(teacher, speech, tmp_path / "here")
    monkeypatch.setattr(prepare, "kept_table", lambda *_: replace(TABLE, rest=10 * TABLE.rest))
    kept = tmp_path / "here" / "run" / "latency_table.json"
    second = prune_for_speed(teacher, speech, tmp_path / "elsewhere", latency_table=kept)
    assert second.encoder.anatomy == first.encoder.anatomy
    assert prune_for_speed(teacher, speech, tmp_path / "without").encoder.anatomy != first.encoder.anatomy


def test_a_run_is_not_resumed_with_another_table(
    elsewhere: Path, teacher: Path, speech: Path, tmp_path: Path
) -> None:
    prune_for_speed(teacher, speech, tmp_path / "out", latency_table=elsewhere)
    write_table(elsewhere, replace(TABLE, rest=10 * TABLE.rest), slimvox.load(teacher).dense_anatomy)
    with pytest.raises(slimvox.SlimvoxError, match="another"):
        prune_for_speed(teacher, speech, tmp_path / "out", latency_table=elsewhere)


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
        main([*command, *options, "--set", *SHORT_CLIPS])
    assert left.value.code == 0
    assert (
        "predicted for openvino-int8, 3 threads of Abacus; not measured on this machine"
        in capsys.readouterr().out
    )
