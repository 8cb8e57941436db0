"""Tables for the terminal, and scores over all tasks."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from slimvox.evaluation.against import Difference, metric_score, points_score
from slimvox.evaluation.forecast import TaskForecast
from slimvox.evaluation.intervals import Estimate, estimate
from slimvox.evaluation.points import METRICS, FixedRows, counted_metrics, mean11, mini_score, superb_s
from slimvox.evaluation.results import YARDSTICK, TaskResult, metric_means

FIXED_ROWS = "fixed_rows.json"


def overall(results: Sequence[TaskResult], *, own_data: bool) -> dict[str, float]:
    """`superb_s` and `mean11` of the official suite, or `mini` of mini-SUPERB; empty unless all tasks that count are
    there: all ten, and in `mini` those of the fixed rows. Results of mini-SUPERB's first version give `mini_1`, which
    is not comparable with `mini`.

    Args:
        results: results of one model.
        own_data: whether some tasks ran on the user's own tables; then there is no overall score.
    """
    means = {metric: mean for metric, mean in metric_means(results).items() if metric in METRICS}
    suites = {result.configuration["suite"] for result in results}
    if own_data:
        return {}
    if suites == {"official"} and means.keys() >= set(METRICS):
        return {"superb_s": superb_s(means), "mean11": mean11(means)}
    yardsticks = {result.configuration.get("yardstick") for result in results}
    if suites == {"mini"} and len(yardsticks) == 1:
        name, fixed = ("mini", fixed_rows()) if YARDSTICK in yardsticks else ("mini_1", fixed_rows(1))
        if fixed is not None and means.keys() >= set(counted_metrics(fixed.tasks)):
            return {name: mini_score(means, fixed)}
    return {}


def mini_estimate(results: Sequence[TaskResult]) -> Estimate | None:
    """The `mini` score with its interval; None if it has none."""
    fixed = fixed_rows()
    if fixed is None or {result.configuration.get("yardstick") for result in results} != {YARDSTICK}:
        return None
    score = points_score(results, fixed)
    return estimate(score) if score is not None and score[1] else None


def fixed_rows(version: int | None = None) -> FixedRows | None:
    """The scores of `fbank` and of the embedded teacher on mini-SUPERB; None if they have not been measured.

    Args:
        version: an earlier version of mini-SUPERB.
    """
    name = FIXED_ROWS if version is None else f"fixed_rows_{version}.json"
    file = resources.files("slimvox.evaluation") / "mini" / name
    if not file.is_file():
        return None
    content = json.loads(file.read_text(encoding="utf-8"))
    rows = content["rows"]
    return FixedRows(fbank=rows["fbank"], teacher=rows["embedded"], weights=content["weights"])


def print_table(console: Console, results: Sequence[TaskResult]) -> None:
    """Print scores with their intervals, chance scores and times."""
    data = dict.fromkeys(_data_name(result) for result in results)
    title = f"{results[0].configuration['model']} on {' and '.join(data)}"
    table = _compact_table(title)
    for column in ("task", "metric", "score", "chance", "chosen on dev", "test", "encode", "fit"):
        left = column in ("task", "metric")
        table.add_column(column, justify="left" if left else "right", no_wrap=column != "chosen on dev")
    for result in results:
        for index, (metric, each) in enumerate(result.scores.items()):
            own = index == 0
            table.add_row(
                result.task.upper() if own else "",
                f"{each['title']} {'↑' if each['higher_is_better'] else '↓'}",
                _score(result, metric),
                _figure(each["chance"], each["percent"]),
                _chosen(result.chosen) if own else "",
                str(result.counts["test"]) if own else "",
                _seconds(result, "encode") if own else "",
                _seconds(result, "fit") if own else "",
            )
    console.print(table)
    if any(result.outcomes for result in results):
        heads = any(len(each["seeds"]) > 1 for result in results for each in result.scores.values())
        console.print(
            "± is half of the 95 % confidence interval for other test speakers and clips"
            + (" and other heads." if heads else "."),
            soft_wrap=True,
        )
    for result in results:
        for each in result.details:
            if "real_time_factor" in each:
                console.print(
                    f"{result.task.upper()}: {each['real_time_factor']:.3f} s of computation per second of audio,"
                    f" {each['encoder_real_time_factor']:.3f} s of it in the encoder (threads: {each['threads']})",
                    soft_wrap=True,
                )
        if result.skipped:
            reasons = ", ".join(f"{count} {reason}" for reason, count in result.skipped.items())
            console.print(f"{result.task.upper()}: skipped {reasons}")


def _compact_table(title: str) -> Table:
    """An empty table whose columns fit into 80 characters."""
    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, collapse_padding=True)


def _data_name(result: TaskResult) -> str:
    official = result.configuration["suite"] == "official"
    return "SUPERB" if official else str(result.configuration.get("yardstick", "your own tables"))


def print_differences(console: Console, names: tuple[str, str], differences: Sequence[Difference]) -> None:
    """Print each metric of two models, and their difference with its 95 % confidence interval."""
    table = _compact_table(f"{names[0]} against {names[1]}")
    for column in ("task", "metric", "first", "second", "difference", "p", "first is"):
        left = column in ("task", "metric", "first is")
        table.add_column(column, justify="left" if left else "right", no_wrap=left)
    for each in differences:
        change = each.difference
        known = not math.isnan(change.error)
        interval = f" ± {_figure(change.half_width, each.percent)}" if known else ""
        sign = "+" if change.value >= 0 else "-"
        table.add_row(
            each.task.upper() or "all",
            f"{each.title} {'↑' if each.higher_is_better else '↓'}",
            _figure(each.first, each.percent),
            _figure(each.second, each.percent),
            f"{sign}{_figure(abs(change.value), each.percent)}{interval}",
            f"{change.p:.2g}" if known else "",
            each.verdict,
        )
    console.print(table)


def print_plan(console: Console, plan: Sequence[TaskForecast]) -> None:
    """Print a forecast, and which option would shorten it."""
    table = _compact_table("Plan, at the pace of this machine")
    for column in ("task", "audio", "steps", "features", "kept", "encoding", "heads", "time"):
        left = column in ("task", "kept")
        table.add_column(column, justify="left" if left else "right", overflow="fold")
    for each in plan:
        table.add_row(
            each.task.upper(),
            _duration(each.audio_hours),
            f"{each.heads} x {_steps(each.steps)}" if each.heads else "-",
            "-" if each.place == "none" else _size(each.feature_bytes),
            {"disk": "disk", "memory": "memory", "streamed": "no", "none": "-"}[each.place],
            _duration(each.encoding_hours),
            _duration(each.head_hours),
            _duration(each.hours),
        )
    table.add_section()
    sums = (sum(getattr(each, name) for each in plan) for name in ("encoding_hours", "head_hours", "hours"))
    table.add_row("all", *[""] * 4, *map(_duration, sums))
    console.print(table)
    for each in plan:
        if each.unreadable:
            console.print(
                f"{each.task.upper()}: {each.unreadable} of {each.recordings} recordings cannot be read"
            )
        if each.place == "streamed":
            console.print(
                f"{each.task.upper()}: not all features are kept, so {_duration(each.encoded_hours)} of audio are"
                f" encoded. With --cache auto, --cache-gib {math.ceil(each.feature_bytes / 2**30)} and room on the"
                f" disk, encoding would take {_duration(each.stored_hours)}."
            )


def _steps(steps: int) -> str:
    return f"{steps // 1000}k" if steps and steps % 1000 == 0 else f"{steps:,}"


def _duration(hours: float) -> str:
    if hours < 1 / 60:
        return f"{3600 * hours:.0f} s"
    if hours < 1:
        return f"{60 * hours:.0f} min"
    return f"{hours:.1f} h" if hours < 100 else f"{hours:,.0f} h"


def _size(count: int) -> str:
    gib = count / 2**30
    return f"{count / 2**20:.0f} MiB" if gib < 1 else f"{gib:.1f} GiB" if gib < 100 else f"{gib:.0f} GiB"


def _score(result: TaskResult, metric: str) -> str:
    each, score = result.scores[metric], metric_score(result, metric)
    text = _figure(each["mean"], each["percent"])
    if score[1]:
        text += f" ± {_figure(estimate(score).half_width, each['percent'])}"
    return text


def _figure(value: float, percent: bool) -> str:
    return f"{value:.2f}" if percent else f"{value:.4f}"


def _chosen(chosen: Sequence[Mapping[str, Any]]) -> str:
    if "layer" in chosen[0]:
        return f"layer {chosen[0]['layer']}"
    rates = (f"{each['learning_rate']:g}" for each in chosen if "learning_rate" in each)
    return " ".join(dict.fromkeys(rates))


def _seconds(result: TaskResult, key: str) -> str:
    return "reused" if result.reused and key == "fit" else _duration(result.seconds[key] / 3600)
