"""Prune the embedded teacher in many ways, score the results, and write one table (RUNS/ablation.md and ablation.csv).

    python benchmarks/ablation/run.py AUDIO... --held-out TEST --out RUNS [--score DATA] [--arms paper dphubert]
        [--seeds 3] [--jobs 2 | --threads 1]

Every arm has the same teacher, audio, steps and final number of parameters (but for those that compare sizes). Runs lie
in RUNS/ARM/SEED; finished ones are not repeated and unfinished ones go on, so the command can be stopped and repeated.
First all arms with one seed, then all with the next. With `--score`, each run goes through mini-SUPERB (for DATA see
docs/evaluation.md): all arms but ideas through the tasks that the mini score counts, ideas through PR, KS, SID and ER,
with one seed of the heads, so that the spread over runs is that of pruning and heads together.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from arms import ARMS, Arm
from results import COMPARISON, read_rows, write_csv
from table import TITLE, tables

from slimvox.evaluation.result_table import fixed_rows
from slimvox.pruning.recipe import load_recipe
from slimvox.report.runs import read_runs
from slimvox.report.score_files import SCORES
from slimvox.report.write import write_tables
from slimvox.util.errors import SlimvoxError
from slimvox.util.files import write_atomically

RAMP = 0.87
"""Share of stage 1 in which the target grows."""
RATE_STEPS = 300
"""Number of steps of stage 1 for which the arms' rates of the multipliers are chosen. In a longer stage, the rates are
lower in proportion, so that the multipliers move as far in the same share of the stage. At the same rate they
overshoot, and the gates end far beyond the target (docs/lab-notebook.md, 2026-11-27)."""
MULTIPLIER_RATE = "gates.multiplier_learning_rate"
QUICK_TASKS = ("pr", "ks", "sid", "er")
"""Tasks on which ideas are scored."""


def main() -> None:
    """Run what is not finished yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser, seeds=3)
    parser.add_argument(
        "--arms", nargs="+", choices=[arm.name for arm in ARMS], help="by default all", metavar="ARM"
    )
    parser.add_argument(
        "--score", type=Path, metavar="DATA", help="data of mini-SUPERB to score every run on"
    )
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=400, help="of both stages together")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once")
    arguments = parser.parse_args()
    threads = arguments.threads or max(1, (os.cpu_count() or 1) // arguments.jobs)
    waiting = [
        (arm, seed)
        for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds)
        for arm in ARMS
        if (arguments.arms is None or arm.name in arguments.arms)
    ]
    pool = ThreadPoolExecutor(arguments.jobs)
    try:
        results = pool.map(lambda each: run(*each, arguments, threads), waiting)
        failed = [name for name in results if name is not None]
    except KeyboardInterrupt:
        # The runs got the signal as well, and save; `timeout` sends it twice.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        pool.shutdown(cancel_futures=True)
        parser.exit(130, "stopped; the same command goes on from here\n")
    try:
        rows = read_rows(arguments.out)
        write_tables(arguments.out / "ablation.md", TITLE, tables(rows))
        write_csv(arguments.out / "ablation.csv", rows)
    except SlimvoxError as error:
        print(error, file=sys.stderr)
    if failed:
        parser.exit(1, f"these failed: {', '.join(failed)}\n")


def add_arguments(parser: argparse.ArgumentParser, seeds: int) -> None:
    """Arguments of every script that makes runs."""
    parser.add_argument("audio", nargs="+", help="what to prune on, as slimvox prune takes it")
    parser.add_argument("--held-out", nargs="+", required=True, help="what to measure the distance on")
    parser.add_argument("--out", type=Path, required=True, help="folder of all runs")
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--threads", type=int, help="of each run; by default its share of the cores")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--set", nargs="*", default=[], help="fields of the recipe, for every run")


def run(arm: Arm, seed: int, arguments: argparse.Namespace, threads: int) -> str | None:
    """Finish one run, and its scores, in processes of their own; returns its name if one failed."""
    out = arguments.out / arm.name / str(seed)
    name = f"{arm.name}/{seed}"
    todo = [] if finished(out) else [("pruned", command(arm, seed, out, arguments))]
    if not (out / COMPARISON).is_file():
        todo.append(("compared", comparing(out, arguments)))
    tasks = missing_tasks(arm, out) if arguments.score is not None else ()
    if tasks:
        todo.append(("scored", scoring(out, tasks, arguments.score)))
    for what, call in todo:
        log, printed = out.parent / f"{seed}.log", out / COMPARISON if what == "compared" else None
        if not slimvox(call, log, threads, anew=what == "pruned", printed=printed):
            print(f"{name}: failed, see {log}", flush=True)
            return name
        print(f"{name}: {what}", flush=True)
    return None


def slimvox(
    arguments: Sequence[str], log: Path, threads: int, *, anew: bool, printed: Path | None = None
) -> bool:
    """Run the command line in a process of its own; returns whether it went well.

    Args:
        arguments: of the command line.
        log: file for what it prints.
        threads: threads of the process.
        anew: whether the log begins anew.
        printed: file for the standard output instead of the log, written only if the command succeeds.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w" if anew else "a") as file:
        done = subprocess.run(
            [sys.executable, "-m", "slimvox", *arguments],
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            stdout=file if printed is None else subprocess.PIPE,
            stderr=file,
        )
    if printed is not None and done.returncode == 0:
        write_atomically(printed, done.stdout)
    return done.returncode == 0


def finished(out: Path) -> bool:
    """True if a run has finished."""
    try:
        return out.is_dir() and any(out.iterdir()) and read_runs([out])[0].finished
    except SlimvoxError:
        return False  # slimvox prune will say what is wrong


def missing_tasks(arm: Arm, out: Path) -> tuple[str, ...]:
    """The tasks of mini-SUPERB that a run was not scored on yet."""
    fixed = fixed_rows()
    assert fixed is not None
    tasks = fixed.tasks if arm.main else QUICK_TASKS
    return tuple(task for task in tasks if not (out / SCORES / f"{task}.json").is_file())


def scoring(out: Path, tasks: Sequence[str], data: Path) -> Sequence[str]:
    """Arguments of slimvox that score one run."""
    return ["evaluate", str(out), "--data", str(data), "--out", str(out / SCORES), "--tasks", *tasks]


def comparing(out: Path, arguments: argparse.Namespace) -> Sequence[str]:
    """Arguments of slimvox that measure the error of one run after a linear map."""
    return ["compare", str(out), *arguments.held_out, "--teacher", arguments.model, "--json"]


def command(arm: Arm, seed: int, out: Path, arguments: argparse.Namespace) -> Sequence[str]:
    """Arguments of slimvox for one run."""
    return [
        "prune",
        arguments.model,
        *arguments.audio,
        *("--held-out", *arguments.held_out),
        *("--out", str(out), "--recipe", "quick", "--seed", str(seed)),
        *(f"--target-{arm.target.kind}", arm.target.text),
        *(("--control", arm.control) if arm.control else ()),
        *("--set", *settings(arm, arguments.steps), *arguments.set),
    ]


def settings(arm: Arm, steps: int) -> Iterator[str]:
    """Fields of the recipe that differ from `quick`."""
    first = round(arm.first_stage * steps)
    yield from (
        f"prune.steps={first}",
        f"finish.steps={steps - first}",
        f"gates.ramp_steps={round(RAMP * first)}",
    )
    overrides = dict(arm.overrides)
    if first > RATE_STEPS and overrides.get("gates.sparsity_control") == "lagrangian":
        rate = overrides.get(MULTIPLIER_RATE, load_recipe("quick").gates.multiplier_learning_rate)
        overrides[MULTIPLIER_RATE] = rate * RATE_STEPS / first
    for name, value in overrides.items():
        yield f"{name}={str(value).lower() if isinstance(value, bool) else value}"


if __name__ == "__main__":
    main()
