"""Mutation testing: `make mutate MODULE="gates masks" SAMPLE=50 SEED=0`.

cosmic-ray makes the mutants and runs the tests. This script adds what it lacks: a map from modules to the tests that
should kill their mutants (`modules.toml`), a sample drawn by a seed, a copy of the tree so that the working tree is
never changed, and a table. (mutmut skips functions with decorators, such as `project`, `teacher_forcing` and
`Muon.step`.)
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from cosmic_ray.commands import init
from cosmic_ray.mutating import mutate_and_test
from cosmic_ray.work_db import WorkDB
from cosmic_ray.work_item import TestOutcome, WorkItem

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
MODULES: dict[str, dict[str, list[str]]] = tomllib.loads((Path(__file__).parent / "modules.toml").read_text())
LEFT_OUT = re.compile(r"core/ReplaceBinaryOperator_(BitOr_\w+|\w+_(BitOr|BitAnd|BitXor|LShift|RShift))$")
"""Operators that are not used: `|` is nearly always part of an annotation, which is never evaluated, and arithmetic of
floats replaced by that of bits is a TypeError in any test."""
FLAGS = ("frozen=", "kw_only=", "slots=", "strict=")
"""Arguments whose values are not mutated: they guard against mistakes of a programmer and change no result."""
SLACK = 4.0
"""Tests of a mutant that take this many times as long as without it count as having noticed."""


def main() -> int:
    """Mutate the modules asked for and print how many mutants were killed; 1 if the tests fail without a mutation."""
    arguments = _arguments()
    with tempfile.TemporaryDirectory(prefix="mutate-") as folder:
        tree = _copy(Path(folder))
        os.chdir(tree)
        os.environ.update(PYTHONPATH=str(tree / "src"), OMP_NUM_THREADS="1")
        rows = [_mutate(name, arguments.sample, arguments.seed) for name in arguments.modules or MODULES]
    print(f"\n{'module':14} {'killed':>7} {'tried':>6} {'of':>6} {'share':>6}")
    rows.append(("together", *(sum(row[i] for row in rows if row) for i in (1, 2, 3))))  # type: ignore[misc]
    for name, killed, tried, of in rows:
        print(f"{name:14} {killed:7} {tried:6} {of:6} {killed / max(1, tried):6.0%}")
    return 0


def _arguments() -> Any:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument(
        "modules", nargs="*", metavar="MODULE", help=f"of {', '.join(MODULES)}; all by default"
    )
    parser.add_argument("--sample", type=int, default=50, help="mutants per module; 0 for all")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample")
    arguments = parser.parse_args()
    unknown = set(arguments.modules) - MODULES.keys()
    if unknown:
        parser.error(f"no such module: {', '.join(sorted(unknown))}; choose from {', '.join(MODULES)}")
    return arguments


def _copy(folder: Path) -> Path:
    """A copy of what git knows of and does not ignore, so that mutants never come into the tree itself."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    tree = folder / "tree"
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, tree / name)
    return tree


def _mutate(name: str, sample: int, seed: int) -> tuple[str, int, int, int]:
    """Try the mutants of one module; returns its name, how many were killed, how many were tried, and of how many."""
    module = MODULES[name]
    command = shlex.join(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-x",
            "--no-header",
            "-p",
            "no:cacheprovider",
            *module["tests"],
        ]
    )
    began = time.monotonic()
    plain = subprocess.run(shlex.split(command), capture_output=True, text=True, check=False)
    if plain.returncode:
        sys.exit(f"{name}: the tests fail without any mutation:\n{plain.stdout[-3000:]}")
    timeout = 30 + SLACK * (time.monotonic() - began)
    items = _mutants(module["mutate"])
    chosen = random.Random(seed).sample(items, sample) if 0 < sample < len(items) else items
    print(f"{name}: {len(chosen)} of {len(items)} mutants, at most {timeout:.0f} s each", flush=True)
    killed = 0
    for number, item in enumerate(chosen, start=1):
        (mutation,) = item.mutations
        result = mutate_and_test(item.mutations, command, timeout)
        noticed = result.test_outcome != TestOutcome.SURVIVED
        killed += noticed
        place = (
            f"{mutation.module_path}:{mutation.start_pos[0]} {mutation.operator_name.removeprefix('core/')}"
        )
        print(f"  {number}/{len(chosen)} {'killed' if noticed else 'SURVIVED'} {place}", flush=True)
        if not noticed:
            changed = [
                line
                for line in (result.diff or "").splitlines()
                if line[:1] in "+-" and line[:3] not in ("+++", "---")
            ]
            print("".join(f"      {line}\n" for line in changed), end="", flush=True)
    return name, killed, len(chosen), len(items)


def _mutants(paths: list[str]) -> list[WorkItem]:
    """All mutants of some files and folders, in an order that does not change."""
    files = sorted(
        file for path in map(Path, paths) for file in (path.rglob("*.py") if path.is_dir() else [path])
    )
    database = WorkDB(":memory:", WorkDB.Mode.create)
    init(files, database, {})
    items = [item for item in database.work_items if _is_telling(item)]
    database.close()
    return sorted(
        items,
        key=lambda item: (
            str(item.mutations[0].module_path),
            item.mutations[0].operator_name,
            item.mutations[0].occurrence,
        ),
    )


def _is_telling(item: WorkItem) -> bool:
    (mutation,) = item.mutations
    line, column = mutation.start_pos
    before = mutation.module_path.read_text().splitlines()[line - 1][:column]
    return not LEFT_OUT.match(mutation.operator_name) and not before.endswith(FLAGS)


if __name__ == "__main__":
    sys.exit(main())
