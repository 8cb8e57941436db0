"""Kill commands at random moments, repeat them until they are finished, and compare what they leave with an
uninterrupted run, bit by bit.

    python benchmarks/soak/kill.py --kills 100 --out SOAK [--seed 0] [--commands prune encode]

SIGKILL, SIGTERM and SIGINT come at random moments between the start of the work and the end. Of `torchrun`, the signal
goes to the launcher, to one of the processes or, as SIGKILL, to all of them. Prints a table by command: the kills, the
runs that were finished in the end, how many of those are identical, and the files that are left over. Exits with 1 if
a run did not finish, or ended otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from commands import Command, commands, make_data, outputs

KILLS_PER_RUN = 6
"""At most so many before a run is left to finish."""
PATIENCE_SECONDS = 300.0
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
ACCEPTED = {0, 1, 130, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT}
"""Exit statuses of a command that was killed; 1 is `torchrun`'s where a process of its failed."""


@dataclass(kw_only=True)
class Tally:
    """Outcome of one command."""

    kills: Counter[str] = field(default_factory=Counter)
    """By signal."""
    runs: int = 0
    identical: int = 0
    problems: list[str] = field(default_factory=list)
    left_over: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, kw_only=True)
class Reference:
    """An uninterrupted run."""

    outputs: dict[str, bytes]
    begun: float
    """Seconds until it made its folder."""
    seconds: float


def main() -> None:
    """Run the soak."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--out", type=Path, required=True, help="folder for data and runs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", nargs="+", help="by default all", metavar="NAME")
    arguments = parser.parse_args()
    draw = random.Random(arguments.seed)
    make_data(arguments.out.absolute() / "data")
    chosen = [
        each
        for each in commands(arguments.out.absolute() / "data")
        if not arguments.commands or each.name in arguments.commands
    ]
    references = {each.name: _reference(each, arguments.out / "whole") for each in chosen}
    tallies = {each.name: Tally() for each in chosen}
    while (done := sum(tally.kills.total() for tally in tallies.values())) < arguments.kills:
        command = min(chosen, key=lambda each: tallies[each.name].kills.total())
        kills = min(draw.randint(1, KILLS_PER_RUN), arguments.kills - done)
        _soak(command, kills, references[command.name], arguments.out / "killed", draw, tallies[command.name])
    print(_table(tallies))
    problems = [f"{name}: {problem}" for name, tally in tallies.items() for problem in tally.problems]
    print("\n".join(problems))
    sys.exit(bool(problems))


def _reference(command: Command, folder: Path) -> Reference:
    out = _new(folder, command)
    started = time.monotonic()
    process = _start(command, out)
    while process.poll() is None and not out.exists():
        time.sleep(0.01)
    begun = time.monotonic() - started
    if process.wait() != 0:
        raise SystemExit(f"`{command.name}` fails without being killed: see {_log(out)}")
    return Reference(outputs=outputs(out), begun=begun, seconds=time.monotonic() - started)


def _soak(
    command: Command, kills: int, reference: Reference, folder: Path, draw: random.Random, tally: Tally
) -> None:
    """One run: killed so many times, or until it is finished, and then left to finish."""
    out = _new(folder, command)
    for _ in range(kills):
        process = _start(command, out)
        try:
            process.wait(draw.uniform(0.8 * reference.begun, reference.seconds))
        except subprocess.TimeoutExpired:
            tally.kills[_kill(process, command, draw)] += 1
        status = _wait(process)
        print(f"{command.name}: {tally.kills.total()} kills, status {status}", flush=True)
        if status not in ACCEPTED:
            tally.problems.append(f"status {status} after a kill: {_last_line(out)}")
        if status == 0:
            break
    status = _wait(_start(command, out))
    tally.runs += 1
    if status != 0:
        tally.problems.append(f"status {status} instead of an end: {_last_line(out)}")
        return
    found = outputs(out)
    differing = sorted(name for name, content in reference.outputs.items() if found.get(name) != content)
    tally.left_over.update(name for name in found if name not in reference.outputs)
    if differing:
        tally.problems.append(f"other than without a kill: {', '.join(differing)}")
    else:
        tally.identical += 1


def _kill(process: subprocess.Popen[bytes], command: Command, draw: random.Random) -> str:
    """Send a signal; returns its name, and to whom it went."""
    number = draw.choice(SIGNALS)
    if command.processes == 1:
        process.send_signal(number)
        return number.name
    below = psutil.Process(process.pid).children(recursive=True)
    whom = draw.choice(["all", "one"] if number == signal.SIGKILL else ["launcher", "one"])
    if whom == "all" or not below:
        for each in [*below, psutil.Process(process.pid)]:
            _send(each, number)
    else:
        _send(psutil.Process(process.pid) if whom == "launcher" else draw.choice(below), number)
    return f"{number.name} {whom}"


def _send(process: psutil.Process, number: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(number)


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Wait until a command and everything that it started has ended; returns its status."""
    deadline, below = time.monotonic() + PATIENCE_SECONDS, []
    while process.poll() is None and time.monotonic() < deadline:
        try:
            below = psutil.Process(process.pid).children(recursive=True) or below
        except psutil.NoSuchProcess:
            break
        time.sleep(0.05)
    for each in (psutil.wait_procs(below, timeout=60)[1]) + ([] if process.poll() is not None else [process]):
        each.kill()
    return process.wait()


def _start(command: Command, out: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    with _log(out).open("ab") as log:
        return subprocess.Popen(command.line(out), env=environment, stdout=log, stderr=log)


def _new(folder: Path, command: Command) -> Path:
    """An empty place for a run; the last component is the same for all, because it may be in what they write."""
    parent = folder.absolute() / command.name.replace(" ", "_")
    shutil.rmtree(parent, ignore_errors=True)
    parent.mkdir(parents=True)
    return parent / "out"


def _log(out: Path) -> Path:
    return out.parent / "log.txt"


def _last_line(out: Path) -> str:
    return (_log(out).read_text(errors="replace").strip().splitlines() or [""])[-1]


def _table(tallies: dict[str, Tally]) -> str:
    lines = ["| command | kills | runs | bit-identical | left over |", "|---|---|---|---|---|"]
    for name, tally in tallies.items():
        kills = ", ".join(f"{count} {kind}" for kind, count in sorted(tally.kills.items()))
        left = ", ".join(f"{count} {file}" for file, count in sorted(tally.left_over.items())) or "nothing"
        lines.append(
            f"| `{name}` | {tally.kills.total()} ({kills}) | {tally.runs} | {tally.identical} | {left} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
