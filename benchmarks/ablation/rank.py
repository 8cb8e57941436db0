"""Print how well each distance to the teacher predicts the task scores of the prunings that exist.

    python benchmarks/ablation/rank.py RUN... [--audio HELD_OUT] [--scores SCORES] [--out FILE.csv]

Each RUN is a directory written by `slimvox prune`, whose scores lie in its folder `scores`, or with `--scores SCORES`
in SCORES/NAME, where NAME is the directory's name. The distances are measured on HELD_OUT (the map of the mapped ones
is fitted on other clips than it is measured on), or read where run.py kept them; FILE.csv has them with the scores. The
rank correlation (Spearman) of each distance with each metric is signed so that 1 means that the smaller distance always
has the better score; the distance with the largest mean comes first.
"""

from __future__ import annotations

import argparse
import csv
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from results import COMPARISON, markdown

from slimvox.comparison.distance import StateDistances
from slimvox.comparison.sources import compare
from slimvox.evaluation.result_table import overall
from slimvox.evaluation.results import metric_means, read_results
from slimvox.evaluation.tasks import tasks
from slimvox.report.score_files import SCORES
from slimvox.util.errors import SlimvoxError
from slimvox.util.json_files import read_json_object
from slimvox.util.validation import build

FEWEST = 4
"""Minimum number of prunings for a rank correlation."""
BETTER_IF_LOWER = {metric.name for task in tasks() for metric in task.metrics if not metric.higher_is_better}


def main() -> None:
    """Measure, and print the correlations."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--audio", help="held-out audio, as slimvox compare takes it")
    parser.add_argument("--seconds", type=float, default=200.0)
    parser.add_argument(
        "--scores", type=Path, help="folder with a folder of scores for each run, by its name"
    )
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    try:
        rows = [_row(run, arguments) for run in arguments.runs]
        print(table(rows))
    except SlimvoxError as error:
        parser.exit(2, f"{error}\n")
    if arguments.out is not None:
        write_csv(arguments.out, rows)


Row = tuple[str, Mapping[str, float], Mapping[str, float]]
"""Name of a pruning, its distances and its scores."""


def distances_by_name(measured: StateDistances) -> dict[str, float]:
    """The distances that are compared: means over all states, the last state, and each state on its own."""
    kinds = {"raw": measured.relative_errors, "mapped": measured.mapped_errors or ()}
    found: dict[str, float] = {"1 - cosine": measured.mean.cosine}
    for kind, errors in kinds.items():
        if errors:
            found |= {f"{kind}, mean": statistics.fmean(errors), f"{kind}, last": errors[-1]}
            found |= {f"{kind}, state {number}": error for number, error in enumerate(errors)}
    return found


def correlations(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Rank correlation of each distance with each metric that enough prunings have, by distance; the best first.

    Raises:
        SlimvoxError: if there are too few prunings with scores.
    """
    from scipy.stats import spearmanr

    metrics = [metric for metric in dict.fromkeys(name for row in rows for name in row[2])]
    metrics = [metric for metric in metrics if sum(metric in scores for _, _, scores in rows) >= FEWEST]
    if not metrics:
        raise SlimvoxError(
            f"a rank correlation needs at least {FEWEST} prunings with scores of the same tasks"
        )
    found = {}
    for distance in rows[0][1]:
        found[distance] = own = {}
        for metric in metrics:
            pairs = [(each[distance], scores[metric]) for _, each, scores in rows if metric in scores]
            if min(len(set(column)) for column in zip(*pairs, strict=True)) < 2:
                continue  # all the same, so there is no order
            sign = 1 if metric in BETTER_IF_LOWER else -1
            own[metric] = sign * float(spearmanr(*zip(*pairs, strict=True)).statistic)
    found = {name: own for name, own in found.items() if own}
    return dict(sorted(found.items(), key=lambda item: -statistics.fmean(item[1].values())))


def table(rows: Sequence[Row]) -> str:
    """Markdown: a line per distance, a column per metric."""
    found = correlations(rows)
    metrics = list(dict.fromkeys(metric for own in found.values() for metric in own))
    lines = []
    for name, own in found.items():
        cells = [f"{own[metric]:+.2f}" if metric in own else "-" for metric in metrics]
        lines.append([name, *cells, f"{statistics.fmean(own.values()):+.2f}"])
    counts = ", ".join(f"{metric}: {sum(metric in scores for _, _, scores in rows)}" for metric in metrics)
    return f"{markdown(('distance', *metrics, 'mean'), lines)}\n\nPrunings: {counts}"


def write_csv(out: Path, rows: Sequence[Row]) -> None:
    """A line per pruning, with its distances and its scores."""
    metrics = list(dict.fromkeys(metric for _, _, scores in rows for metric in scores))
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["pruning", *rows[0][1], *metrics])
        for name, distances, scores in rows:
            writer.writerow([name, *distances.values(), *(scores.get(metric, "") for metric in metrics)])


def kept_distances(run: Path) -> StateDistances:
    """The distances that `run.py` measured on its first held-out source.

    Raises:
        SlimvoxError: if it did not.
    """
    file = run / COMPARISON
    if not file.is_file():
        raise SlimvoxError(f"there is no {file}; give audio to measure on with --audio")
    found: StateDistances = build(StateDistances, read_json_object(file)["sources"][0]["distances"])
    return found


def _row(run: Path, arguments: argparse.Namespace) -> Row:
    folder = run / SCORES if arguments.scores is None else arguments.scores / run.name
    results = read_results(folder)
    if arguments.audio is None:
        measured = kept_distances(run)
    else:
        measured = compare(run, arguments.audio, seconds=arguments.seconds).sources[0].distances
    return (
        run.name,
        distances_by_name(measured),
        {**metric_means(results), **overall(results, own_data=False)},
    )


if __name__ == "__main__":
    main()
