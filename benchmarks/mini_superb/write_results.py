"""Write the table of mini-SUPERB results, or the rows that fix the `mini` score, from finished evaluations;
or recompute the published scores.

    slimvox evaluate fbank --data DIR --out scores/fbank --seeds 3
    slimvox evaluate embedded --data DIR --out scores/embedded --seeds 3
    python benchmarks/mini_superb/write_results.py fixed-rows scores/fbank scores/embedded
    python benchmarks/mini_superb/write_results.py published --out docs/published-superb.md
    python benchmarks/mini_superb/write_results.py spread RUNS/quick RUNS/quick-50
    python benchmarks/mini_superb/write_results.py table fbank=scores/fbank teacher=scores/embedded --out FILE.md

The text of the page around the tables is kept: only what stands between the two marks is replaced.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path

from published_scores import published_models
from score_tables import (
    fixed_row,
    pruning_noise,
    read_model,
    score_table,
    seeds_of,
    task_weights,
    tasks_told_apart,
    time_table,
)
from spread import read_recipes, spread_table

from slimvox.evaluation.against import check_comparable
from slimvox.evaluation.points import FixedRows, Scale, mean11, superb_s
from slimvox.evaluation.result_table import FIXED_ROWS, fixed_rows
from slimvox.report.write import write_tables
from slimvox.util.errors import SlimvoxError
from slimvox.util.files import write_atomically

MINI = Path(__file__).parents[2] / "src" / "slimvox" / "evaluation" / "mini"
DOCS = Path(__file__).parents[2] / "docs"
PRUNINGS = (DOCS / "results-ablation-1.csv", DOCS / "results-teacher.csv")
"""Scores of several prunings per recipe: those of the first teacher on mini-SUPERB 1 (three of most recipes), and, for
the tasks that these have no scores for, three prunings of the present teacher."""
TESTS_OF_PRUNINGS = {"sid": 200, "ic": 139}
"""Test clips of these tasks in the first of `PRUNINGS`: the noise is taken to fall with the root of the number."""
TITLE = "# mini-SUPERB: results"


def main() -> None:
    """Run one of the commands."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    rows = commands.add_parser("fixed-rows", help=f"write {FIXED_ROWS}")
    rows.add_argument("fbank", type=Path)
    rows.add_argument("embedded", type=Path)
    rows.add_argument(
        "--prunings",
        type=Path,
        nargs="+",
        default=PRUNINGS,
        help="scores of several prunings per recipe, for the weights; a task's come from the first file with any",
    )
    table = commands.add_parser("table", help="write the page with the tables")
    table.add_argument("models", nargs="+", metavar="NAME=DIR")
    table.add_argument("--out", type=Path, required=True)
    spread = commands.add_parser("spread", help="print how far scores of prunings of one recipe differ")
    spread.add_argument(
        "recipes",
        nargs="+",
        type=Path,
        metavar="DIR",
        help="folder with a folder of scores, or of a run, for each pruning of one recipe",
    )
    published = commands.add_parser("published", help="recompute the published SUPERB scores")
    published.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    try:
        if arguments.command == "fixed-rows":
            write_fixed_rows(arguments.fbank, arguments.embedded, arguments.prunings)
        elif arguments.command == "spread":
            print(spread_table(read_recipes(arguments.recipes), _fixed()))
        elif arguments.command == "published":
            write_tables(arguments.out, "# Published SUPERB scores", published_table())
        else:
            write_page(arguments.models, arguments.out)
    except SlimvoxError as error:
        parser.exit(2, f"{error}\n")


def write_fixed_rows(fbank: Path, embedded: Path, prunings: Sequence[Path]) -> None:
    """Keep the means of the two models in the package, with the weights of the tasks that tell them apart.

    Args:
        fbank: folder of scores.
        embedded: folder of scores.
        prunings: CSV files like `docs/results-ablation-1.csv`; a task's noise comes from the first one with its scores.
    """
    models = {"fbank": read_model("fbank", fbank), "embedded": read_model("embedded", embedded)}
    check_comparable({name: model.results for name, model in models.items()})
    for name, model in models.items():
        given = model.results[0].configuration["model"]
        if given != name:
            raise SlimvoxError(
                f"the row of {name} must come from the model {name}, but is of {given} instead"
            )
    rows = {name: fixed_row(model) for name, model in models.items()}
    noise: dict[str, float] = {}
    for path in prunings:
        with path.open(encoding="utf-8", newline="") as file:
            lines = list(csv.DictReader(file))
        noise = pruning_noise(lines, Scale(low=rows["fbank"], high=rows["embedded"])) | noise
    for task, tests in TESTS_OF_PRUNINGS.items():
        found = models["embedded"].of(task)
        if found is not None and task in noise:
            noise[task] *= math.sqrt(tests / found.counts["test"])
    told = tasks_told_apart(seeds_of(models["fbank"]), seeds_of(models["embedded"]))
    weights = task_weights(noise, told)
    for task in told:
        if task not in weights:
            print(
                f"{task} does not count: no recipe has several prunings with scores for it, so its weight is unknown"
            )
    content = {
        "made_by": "benchmarks/mini_superb/write_results.py fixed-rows",
        "seeds": models["fbank"].results[0].configuration["seeds"],
        "data_fingerprints": {
            result.task: result.configuration["data_fingerprint"] for result in models["fbank"].results
        },
        "model_fingerprints": {
            name: model.results[0].configuration["model_fingerprint"] for name, model in models.items()
        },
        "weights": weights,
        "noise_in_points": {task: round(value, 1) for task, value in noise.items()},
        "rows": rows,
    }
    write_atomically(MINI / FIXED_ROWS, (json.dumps(content, indent=1) + "\n").encode())


def published_table() -> str:
    """Markdown: each published row with its scores as published and as slimvox computes them from its metrics."""
    lines = [
        "| model | parameters, M | superb_s, published | superb_s, computed | mean11, published | mean11, computed |",
        "|---|---|---|---|---|---|",
    ]
    for model in published_models():
        figures = (f"{superb_s(model.scores):.1f}", f"{model.mean11:.1f}", f"{mean11(model.scores):.2f}")
        cells = [model.name, f"{model.parameters:g}", str(model.superb_s), *figures]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _fixed() -> FixedRows:
    fixed = fixed_rows()
    assert fixed is not None
    return fixed


def write_page(named: list[str], out: Path) -> None:
    """Put the tables of some models into a Markdown page."""
    models = []
    for text in named:
        name, equals, folder = text.partition("=")
        if not equals:
            raise SlimvoxError(f"a model must be NAME=DIR, but is {text!r} instead")
        models.append(read_model(name, Path(folder)))
    check_comparable({model.name: model.results for model in models})
    seeds = models[0].results[0].configuration["seeds"]
    tables = (
        f"Mean ± standard deviation over {seeds} seeds of the heads; in percent, except QbE.\n\n"
        f"{score_table(models, _fixed())}\n\nSeconds per stage:\n\n{time_table(models)}"
    )
    write_tables(out, TITLE, tables)


if __name__ == "__main__":
    main()
