"""Runs of limited time: when they end by a clock of the tests' own, and what becomes of their schedule."""

from __future__ import annotations

import itertools
import json
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import slimvox
from distributed_runs import finish, torchrun
from slimvox.pruning import time_budget
from slimvox.pruning.optimisers import rate_share
from slimvox.pruning.stage import Stage
from slimvox.pruning.timeline import Timeline
from slimvox.pruning.trainer import Trainer
from tiny_runs import make_run

FIRST, SECOND = 400, 200
SCHEDULE = {
    "prune.steps": FIRST,
    "finish.steps": SECOND,
    "prune.warmup_steps": 40,
    "finish.warmup_steps": 20,
    "gates.ramp_steps": 300,
    "finish.teacher_forcing": 1.0,
}


@dataclass
class World:
    """A clock, and steps that take time but train nothing."""

    seconds: dict[str, float] = field(default_factory=lambda: {"prune": 1.0, "finish": 1.0})
    """Time of a step, by stage."""
    measuring: float = 0.0
    now: float = 1000.0
    steps: list[tuple[str, float, float, float]] = field(default_factory=list)
    """Title of the stage, learning rate, target sparsity and teacher forcing of each step."""
    at_step: Callable[[int], None] = lambda count: None
    """Called before each step with the number of steps done in all stages."""

    def train_step(self, stage: Stage, batches: Any) -> tuple[dict[str, float], float]:
        self.at_step(len(self.steps))
        self.now += self.seconds[stage.name]
        before, after = (stage._timeline.position(each) for each in (stage.step, stage.step + 1))
        rate = rate_share(before, stage.settings, after)
        self.steps.append((stage.title, rate, stage._current_target_sparsity, stage.settings.forced(before)))
        return {"loss": 1.0, "distillation": 1.0, "learning_rate": rate}, 1.0

    def distance(self, trainer: Trainer, encoder: Any) -> None:
        self.now += self.measuring

    def install(self, replace: Callable[[Any, str, Any], None]) -> None:
        """Replace the clock and the work of runs."""
        replace(time_budget, "clock", lambda: self.now)
        replace(Stage, "_train_step", lambda stage, batches: self.train_step(stage, batches))  # noqa: PLW0108
        replace(Trainer, "distance", lambda trainer, encoder: self.distance(trainer, encoder))  # noqa: PLW0108

    def of(self, title: str) -> list[tuple[float, float, float]]:
        return [tuple(values) for name, *values in self.steps if name == title]  # type: ignore[misc]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    world = World()
    world.install(monkeypatch.setattr)
    return world


@pytest.fixture
def run(teacher: Path, speech: Path, tmp_path: Path) -> Callable[..., slimvox.PruneResult]:
    def start(seconds: float | None, folder: str = "out", **arguments: Any) -> slimvox.PruneResult:
        hours = None if seconds is None else seconds / 3600
        return make_run(tmp_path / folder, teacher, speech, settings=SCHEDULE, hours=hours, **arguments)

    return start


def test_more_time_than_the_recipe_takes_changes_nothing(
    world: World, run: Callable[..., Any], tmp_path: Path
) -> None:
    run(3600)
    assert (len(world.of("prune")), len(world.of("finish"))) == (FIRST, SECOND)
    assert json.loads((tmp_path / "out" / "run" / "pace.json").read_text())["stages"] == {}


def test_time_that_was_used_without_a_limit_counts(
    world: World, run: Callable[..., Any], tmp_path: Path
) -> None:
    began = world.now
    run(None)
    recorded = json.loads((tmp_path / "out" / "run" / "pace.json").read_text())
    assert recorded["used_seconds"] == pytest.approx(world.now - began) and recorded["stages"] == {}


@pytest.mark.parametrize("measuring", [0.0, 10.0])
def test_a_run_ends_in_time_along_the_whole_schedule(
    measuring: float, world: World, run: Callable[..., Any], tmp_path: Path
) -> None:
    world.measuring, began = measuring, world.now
    run(240)
    assert 0.9 * 240 < world.now - began <= 240
    recorded = json.loads((tmp_path / "out" / "run" / "pace.json").read_text())
    assert recorded["used_seconds"] == pytest.approx(world.now - began)
    first, second = world.of("prune"), world.of("finish")
    assert len(first) == pytest.approx(2 * len(second), rel=0.1)
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"{len(first)} + {len(second)}" in card
    for stage, length, warmup in ((first, FIRST, 40), (second, SECOND, 20)):
        rates = [rate for rate, _, _ in stage]
        stride = 1.2 * length / (len(stage) - 10)
        peak = rates.index(max(rates))
        assert max(rates) == pytest.approx(1.0, abs=stride / length)
        assert rates[:peak] == sorted(rates[:peak]) and rates[peak:] == sorted(rates[peak:], reverse=True)
        jumps = [abs(a - b) * warmup / stride for a, b in itertools.pairwise(rates)]
        assert max(jumps) <= 1, (jumps.index(max(jumps)), max(jumps), len(stage), stride, rates)
        assert rates[-1] <= 2 * stride / length
    targets = [target for _, target, _ in first]
    assert targets == sorted(targets) and targets[-1] == pytest.approx(0.72)
    assert max(b - a for a, b in itertools.pairwise(targets)) < 0.03
    forced = [share for _, _, share in second]
    assert forced == sorted(forced, reverse=True) and forced[0] == 1 and forced[-1] == 0
    assert sum(share > 0 for share in forced) == pytest.approx(len(second) / 2, abs=4)


def test_time_that_stage_2_saves_goes_to_stage_2(world: World, run: Callable[..., Any]) -> None:
    world.seconds["finish"], began = 0.5, world.now
    run(240)
    assert 0.9 * 240 < world.now - began <= 240
    assert len(world.of("finish")) > 0.8 * len(world.of("prune"))


def test_a_machine_that_becomes_slower_shortens_the_rest(world: World, run: Callable[..., Any]) -> None:
    def slow_down(count: int) -> None:
        if count == 60:
            world.seconds = {"prune": 2.5, "finish": 2.5}

    world.at_step, began = slow_down, world.now
    run(240)
    assert 0.85 * 240 < world.now - began <= 240
    targets = [target for _, target, _ in world.of("prune")]
    assert targets == sorted(targets) and targets[-1] == pytest.approx(0.72)


def test_a_resumed_run_keeps_the_promise_of_its_whole_time(world: World, run: Callable[..., Any]) -> None:
    worked = 0.0

    def interrupt(count: int) -> None:
        if count == 50:
            signal.raise_signal(signal.SIGTERM)

    world.at_step, began = interrupt, world.now
    with pytest.raises(slimvox.RunInterrupted):
        run(240)
    worked += world.now - began
    world.at_step, world.now = lambda count: None, world.now + 1e5  # the time in between is not the run's
    world.seconds, began = {"prune": 2.0, "finish": 1.5}, world.now
    run(240)
    worked += world.now - began
    assert 0.85 * 240 < worked <= 240


def test_steps_that_were_decided_are_taken_again(
    world: World, run: Callable[..., Any], tmp_path: Path
) -> None:
    """Killed long after its last checkpoint: the decisions since then are in the run's directory."""

    def kill(count: int) -> None:
        if count == 70:
            raise KeyboardInterrupt

    world.at_step = kill
    with pytest.raises(KeyboardInterrupt):
        run(240, checkpoint_seconds=1e9)
    before, world.steps, world.at_step = world.steps, [], lambda count: None
    run(None)  # decides nothing more
    assert world.steps[:70] == before
    decided = json.loads((tmp_path / "out" / "run" / "pace.json").read_text())["stages"]["prune"]
    assert len(world.of("prune")) == decided[-1][1] < FIRST


def test_every_size_is_cut_and_finished_in_time(world: World, run: Callable[..., Any]) -> None:
    world.measuring, began = 2.0, world.now
    result = run(300, sizes="60%,35%")
    assert 0.9 * 300 < world.now - began <= 300
    assert [each.parameters / each.parameters_dense for each in result.sizes] == [
        pytest.approx(share, abs=0.01) for share in (0.6, 0.35)
    ]
    assert len(world.of("finish keep-60")) > 20 and len(world.of("finish keep-35")) > 20


def test_a_baseline_ends_in_time(world: World, run: Callable[..., Any]) -> None:
    began = world.now
    run(240, control="random")
    assert 0.9 * 240 < world.now - began <= 240
    assert world.of("finish")[-1][0] < 0.02


def test_too_little_time_is_one_sentence_and_more_time_goes_on(world: World, run: Callable[..., Any]) -> None:
    with pytest.raises(
        slimvox.SlimvoxError, match=r"at 1\.0 s per step there is time for 58 steps.* 100;"
    ) as error:
        run(60)
    needed = float(str(error.value).split("give at least ")[1].split(" ")[0])
    assert 120 < 3600 * needed < 156
    run(3600 * needed)
    assert 100 < len(world.steps) < 200


def test_a_run_that_was_refused_gives_way_to_another_command(world: World, run: Callable[..., Any]) -> None:
    with pytest.raises(slimvox.SlimvoxError, match="is too short"):
        run(60)
    assert run(300, seed=1).directory.is_dir()


def test_a_run_too_short_to_be_measured_says_that_it_took_longer(
    world: World, run: Callable[..., Any]
) -> None:
    with pytest.raises(slimvox.SlimvoxError, match=r"e-10` is too short: .* a run needs at least 8;"):
        run(1e-6, max_steps=8, folder="8")
    for seconds, said in ((1e-6, True), (3600, False)):
        console = Console(record=True, width=1000)
        run(seconds, max_steps=2, folder=f"2-{said}", console=console)
        assert (
            "took 2 s, more than the 1e-06 s of `--hours`: it has too few" in console.export_text()
        ) == said


def test_the_main_process_decides_for_all(
    teacher: Path, speech: Path, tmp_path: Path, world: World, run: Callable[..., Any]
) -> None:
    """The clock of the other process is ten times as fast."""
    code = f"""
import os, torch
from pathlib import Path
import slimvox
from pruning.test_time_budget import SCHEDULE, World
from slimvox.pruning import time_budget
from slimvox.pruning.stage import Stage
from slimvox.pruning.trainer import Trainer
from tiny_runs import make_run

folder, rank = Path({str(tmp_path)!r}), int(os.environ["RANK"])
world = World(seconds=dict.fromkeys(("prune", "finish"), 10.0**rank))
world.install(setattr)
make_run(
    folder / f"out-{{rank}}", {str(teacher)!r}, {str(speech)!r}, settings=SCHEDULE, hours=240 / 3600, device="auto"
)
torch.save(world.steps, folder / f"steps-{{rank}}.pt")
"""
    process = torchrun(code, tmp_path)
    said = finish(process)
    assert process.returncode == 0, said
    first, second = (torch.load(tmp_path / f"steps-{rank}.pt") for rank in range(2))
    run(240)
    assert first == second == world.steps


@given(
    length=st.integers(1, 300),
    turns=st.lists(st.tuples(st.floats(0.01, 0.99), st.floats(0.02, 1.0)), max_size=4),
)
def test_a_timeline_runs_through_the_whole_schedule(length: int, turns: list[tuple[float, float]]) -> None:
    timeline = Timeline(length)
    for at, share in turns:
        step = int(at * timeline.steps)
        earlier = timeline.position(step)
        steps = step + max(1, int(share * (length - earlier)))
        timeline = timeline.turned(step, steps)
        assert timeline.steps == steps <= length and timeline.position(step) == pytest.approx(earlier)
    places = [timeline.position(step) for step in range(timeline.steps + 1)]
    assert places[0] == 0 and places[-1] == length
    assert all(b - a > 1 - 1e-6 for a, b in itertools.pairwise(places))
    for step in range(1, timeline.steps + 1):
        assert timeline.step_at(places[step]) == step


def test_turns_that_lengthen_a_stage_or_end_before_now_are_refused() -> None:
    for steps in (5, 11):
        with pytest.raises(ValueError, match="`steps` must be above 5 and at most 10"):
            Timeline(10).turned(5, steps)
    turned = Timeline(100).turned(10, 40).turned(20, 30)
    assert turned.turns == ((10, 40), (20, 30))
    assert turned.turned(15, 25).turns == ((10, 40), (15, 25))  # as if 20 had not been
