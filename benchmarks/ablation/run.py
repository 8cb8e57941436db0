"""Prune the embedded teacher in many ways, for the table that `table.py` makes of it.

    python benchmarks/ablation/run.py AUDIO... --held-out TEST --out RUNS [--arms paper dphubert] [--seeds 3] [--jobs 2]

Every arm has the same teacher, audio, steps and final number of parameters (but for those that compare sizes). Runs lie
in RUNS/ARM/SEED; finished ones are not repeated and unfinished ones go on, so the command can be stopped and repeated.
First all arms with one seed, then all with the next.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from arms import ARMS, Arm

from slimvox.errors import SlimvoxError
from slimvox.report.runs import read_runs

RAMP = 0.87
"""Share of stage 1 in which the target grows."""


def main() -> None:
    """Run what is not finished yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("audio", nargs="+", help="what to prune on, as slimvox prune takes it")
    parser.add_argument("--held-out", nargs="+", required=True, help="what to measure the distance on")
    parser.add_argument("--out", type=Path, required=True, help="folder of all runs")
    parser.add_argument(
        "--arms", nargs="+", choices=[arm.name for arm in ARMS], help="by default all", metavar="ARM"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=400, help="of both stages together")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once, each with its share of the cores")
    parser.add_argument("--set", nargs="*", default=[], help="fields of the recipe, for every arm")
    arguments = parser.parse_args()
    threads = max(1, (os.cpu_count() or 1) // arguments.jobs)
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
        # The runs got the signal as well, and save.
        pool.shutdown(cancel_futures=True)
        parser.exit(130, "stopped; the same command goes on from here\n")
    if failed:
        parser.exit(1, f"these failed: {', '.join(failed)}\n")


def run(arm: Arm, seed: int, arguments: argparse.Namespace, threads: int) -> str | None:
    """Finish one run in a process of its own; returns its name if it failed."""
    out = arguments.out / arm.name / str(seed)
    name = f"{arm.name}/{seed}"
    if finished(out):
        return None
    out.parent.mkdir(parents=True, exist_ok=True)
    with (out.parent / f"{seed}.log").open("w") as log:
        code = subprocess.run(
            [sys.executable, "-m", "slimvox", *command(arm, seed, out, arguments)],
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            stdout=log,
            stderr=log,
        ).returncode
    print(f"{name}: {'done' if not code else f'failed, see {log.name}'}", flush=True)
    return name if code else None


def finished(out: Path) -> bool:
    """Whether a run came to its end."""
    try:
        return out.is_dir() and any(out.iterdir()) and read_runs([out])[0].finished
    except SlimvoxError:
        return False  # slimvox prune will say what is wrong


def command(arm: Arm, seed: int, out: Path, arguments: argparse.Namespace) -> Sequence[str]:
    """Arguments of slimvox for one run."""
    return [
        "prune",
        arguments.model,
        *arguments.audio,
        *("--held-out", *arguments.held_out),
        *("--out", str(out), "--recipe", "quick", "--seed", str(seed)),
        *("--target-parameters", f"{100 * arm.keep:g}%"),
        *(("--control", arm.control) if arm.control else ()),
        *("--set", *settings(arm, arguments.steps), *arguments.set),
    ]


def settings(arm: Arm, steps: int) -> Iterator[str]:
    """Fields of the recipe that differ from `quick`."""
    first = steps // 2
    yield from (
        f"prune.steps={first}",
        f"finish.steps={steps - first}",
        f"gates.ramp_steps={round(RAMP * first)}",
    )
    for name, value in arm.overrides.items():
        yield f"{name}={str(value).lower() if isinstance(value, bool) else value}"


if __name__ == "__main__":
    main()
