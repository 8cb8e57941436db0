"""Compare how soon stage 1 reaches the target size and given losses, with the straight-through estimator and without.

    python benchmarks/ablation/run.py AUDIO... --held-out TEST --out RUNS --steps 300 \\
        --arms paper{,-no-ste,-sgd,-no-ste-sgd} \\
        --set prune.steps=240 finish.steps=60 gates.ramp_steps=80 gates.multiplier_learning_rate=0.5
    python benchmarks/ablation/table.py RUNS --out RUNS/ablation.md --speed
    python benchmarks/ablation/steps_to_loss.py RUNS [--csv FILE.csv]
    python benchmarks/ablation/steps_to_loss.py FILE.csv

The size is reached at the first step of stage 1 after which the expected sparsity is at most one point below its final
target. A loss is reached at the first step at which the sparsity is again at least that and the mean distillation loss
of the last 20 steps, all since the size was reached, is not above it. Runs of one seed have the same batches and the
same noise for the gates, and are compared in pairs.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arms import Arm
from results import markdown, numbers_of, paired_difference, read_rows, read_runs_csv, with_spread

from slimvox.util.errors import SlimvoxError

WINDOW, TOLERANCE = 20, 0.01
"""Steps over which the loss is averaged; maximum gap between expected and target sparsity."""
SIZE = "size"
"""Key of the step at which the target size is reached, beside those of the losses."""
MEASURES: Mapping[str, tuple[str, int]] = {
    "loss": ("loss at the end of stage 1", 3),
    "after_prune": ("error after surgery", 3),
    "error": ("error at the end", 3),
    "macs": ("MACs, share of dense", 3),
    "speed_up": ("speed-up, 10 s", 2),
}
"""Mean loss of the last steps of stage 1 and fields of `Result`, with titles and digits."""
PAIRS: Mapping[tuple[str, str], tuple[float, ...]] = {
    ("paper", "paper-no-ste"): (0.32, 0.30, 0.28),
    ("paper-sgd", "paper-no-ste-sgd"): (0.46, 0.44, 0.42),
}
"""Arms with the estimator and without, and the losses to reach."""
NEVER = "never"


@dataclass(frozen=True, kw_only=True)
class Pace:
    """One run."""

    arm: Arm
    seed: str
    measures: Mapping[str, float]
    """Those of `MEASURES` that were measured."""
    steps: Mapping[str, int | None]
    """Step of stage 1 at which the size (`SIZE`) or a loss (as text) was reached; None if never."""


def main() -> None:
    """Read, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, help="folder of the runs, or a CSV of this command")
    parser.add_argument("--csv", type=Path, help="CSV to write")
    arguments = parser.parse_args()
    try:
        runs = read_csv(arguments.runs) if arguments.runs.is_file() else read_folder(arguments.runs)
        print(tables(runs))
    except SlimvoxError as error:
        parser.exit(2, f"{error}\n")
    if arguments.csv is not None:
        write_csv(arguments.csv, runs)


def read_folder(folder: Path) -> list[Pace]:
    """The finished runs of the arms that are compared.

    Raises:
        SlimvoxError: if there are none.
    """
    losses_of = {name: losses for names, losses in PAIRS.items() for name in names}
    found = []
    for row in read_rows(folder):
        for run in row.runs if row.arm.name in losses_of else ():
            assert run.directory is not None
            lines = (run.directory / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()
            stage = [each for each in map(json.loads, lines) if each["stage"] == "prune"]
            values = {name: getattr(run, name, None) for name in MEASURES}
            values["loss"] = statistics.fmean(each["distillation"] for each in stage[-WINDOW:])
            found.append(
                Pace(
                    arm=row.arm,
                    seed=run.seed,
                    measures={name: value for name, value in values.items() if value is not None},
                    steps=steps_reached(stage, losses_of[row.arm.name]),
                )
            )
    if not found:
        raise SlimvoxError(f"no run of {', '.join(losses_of)} in {folder} is finished")
    return found


def steps_reached(stage: Sequence[Mapping[str, Any]], losses: Sequence[float]) -> dict[str, int | None]:
    """First step at which the size, and each loss at that size, is reached, from the log of stage 1."""
    smallest = stage[-1]["target_sparsity"] - TOLERANCE
    small = [place for place, record in enumerate(stage) if record["sparsity"] >= smallest]
    means = {
        place: statistics.fmean(record["distillation"] for record in stage[place + 1 - WINDOW : place + 1])
        for place in small
        if place + 1 >= small[0] + WINDOW
    }
    found = {SIZE: small[0] if small else None}
    for loss in losses:
        found[f"{loss:g}"] = next((place for place, mean in means.items() if mean <= loss), None)
    return {name: None if place is None else int(stage[place]["step"]) for name, place in found.items()}


def tables(runs: Sequence[Pace]) -> str:
    """Markdown: for each pair of arms a line per arm, and one with the differences, seed by seed."""
    parts = []
    for names in PAIRS:
        arms = {name: {run.seed: run for run in runs if run.arm.name == name} for name in names}
        with_estimator, without = arms.values()
        if not with_estimator or not without:
            continue
        targets = list(next(iter(with_estimator.values())).steps)
        lines = []
        for name, own in arms.items():
            steps = [_steps([run.steps[target] for run in own.values()]) for target in targets]
            measures = [
                with_spread(
                    [run.measures[measure] for run in own.values() if measure in run.measures], digits
                )
                for measure, (_, digits) in MEASURES.items()
            ]
            lines.append([f"`{name}`", str(len(own)), *steps, *measures])
        pairs = [(with_estimator[seed], without[seed]) for seed in with_estimator if seed in without]
        columns = [
            *([(one.steps[target], other.steps[target]) for one, other in pairs] for target in targets),
            *(
                [(one.measures.get(name), other.measures.get(name)) for one, other in pairs]
                for name in MEASURES
            ),
        ]
        lines.append(["first against second", str(len(pairs)), *map(_difference, columns)])
        titles = [*map(_title, targets), *(title for title, _ in MEASURES.values())]
        parts.append(markdown(("arm", "runs", *titles), lines))
    return "\n\n".join(parts)


def _title(target: str) -> str:
    return "steps to the size" if target == SIZE else f"to a loss of {target}"


def _steps(steps: Sequence[int | None]) -> str:
    """Mean and spread of the runs that reached it, and how many those are if not all."""
    reached = [float(step) for step in steps if step is not None]
    if not reached:
        return NEVER
    return with_spread(reached, 0) + (
        f" ({len(reached)} of {len(steps)})" if len(reached) < len(steps) else ""
    )


def _difference(pairs: Sequence[tuple[float | None, float | None]]) -> str:
    """Difference over the pairs of which both have a value, and how many those are if not all."""
    both = [(one, other) for one, other in pairs if one is not None and other is not None]
    if not both:
        return "-"
    text = paired_difference(*zip(*both, strict=True))
    return text + (f"; {len(both)} of {len(pairs)} pairs" if len(both) < len(pairs) else "")


def write_csv(out: Path, runs: Sequence[Pace]) -> None:
    """A line per run; what was not measured is empty."""
    targets = list(dict.fromkeys(target for run in runs for target in run.steps))
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["arm", "seed", *MEASURES, *(f"steps: {target}" for target in targets)])
        for run in runs:
            measured = [run.measures.get(name, "") for name in MEASURES]
            steps = [run.steps.get(target, "") for target in targets]
            writer.writerow(
                [run.arm.name, run.seed, *measured, *(NEVER if each is None else each for each in steps)]
            )


def read_csv(path: Path) -> list[Pace]:
    """The runs of a CSV of this command.

    Raises:
        SlimvoxError: if it is not one.
    """

    def run(arm: Arm, line: Mapping[str, str]) -> Pace:
        steps = {
            column.removeprefix("steps: "): None if value == NEVER else int(value)
            for column, value in line.items()
            if column.startswith("steps: ") and value
        }
        return Pace(arm=arm, seed=line["seed"], measures=numbers_of(line, MEASURES), steps=steps)

    runs = read_runs_csv(path, "steps_to_loss.py", run)
    if not runs or not runs[0].steps:
        raise SlimvoxError(f"{path} is not a CSV that steps_to_loss.py --csv wrote (no runs with steps)")
    return runs


if __name__ == "__main__":
    main()
