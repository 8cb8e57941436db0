"""The report page: text and tables here, charts in `slimvox.report.charts`, layout in `page.html.jinja`, `page.css`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from slimvox.costs import macs, parameters
from slimvox.report.charts import anatomy_panels, cost_panels, gate_panels, score_panels, training_panels
from slimvox.report.charts.svg import Panel, series_class
from slimvox.report.runs import RunRecord
from slimvox.report.score_files import ScoreSet
from slimvox.report.speeds import Speed
from slimvox.report.tables import BLOCKS, cost_table, differences, flat_recipe, summary
from slimvox.util.quantities import short_number

GENERATOR = "slimvox report"
"""Text in the page's head that marks the file as a report, so that a later report may replace it."""


@dataclass(frozen=True, kw_only=True)
class PanelRow:
    """Panels side by side: those of one run, or the same panel of every run."""

    title: str
    panels: Sequence[tuple[str, str, Panel]]
    """Classes of the series, label of the run, panel; the first two are empty where one run is alone."""


def report_page(
    runs: Sequence[RunRecord], scores: Sequence[ScoreSet] = (), speeds: Sequence[Speed] = ()
) -> str:
    """The page as HTML: one file that loads nothing else.

    Args:
        runs: at least one; several are compared side by side.
        scores: scores of the runs' models, and of others to compare with.
        speeds: speeds of the runs' models, and of others to compare with.
    """
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_read),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    series = {run.label: index for index, run in enumerate(runs)}
    cut = [run for run in runs if run.anatomy is not None]
    return environment.get_template("page.html.jinja").render(
        generator=GENERATOR,
        style=Markup(_read("page.css")),
        title=_title(runs),
        runs=runs,
        several=len(runs) > 1,
        series_class=lambda run: series_class(series[run.label]),
        summaries=[summary(run, scores, speeds) for run in runs],
        dense=_dense(runs),
        unfinished=[run.label for run in runs if not run.finished],
        anatomy=_anatomy_rows(cut, runs, series),
        training=training_panels(runs),
        unlogged=[run.label for run in runs if not run.log],
        gates=_gate_rows(runs, series),
        without_gates=[_why_no_gates(run) for run in runs if not gate_panels(run)],
        blocks=BLOCKS,
        cost_bars=cost_panels(cut),
        costs=[(run, cost_table(run)) for run in cut],
        scores=score_panels(scores, series),
        suites=sorted({each.suite for each in scores}),
        speeds=speeds,
        differences=differences(runs),
        recipes=[(run, flat_recipe(run.recipe)) for run in runs],
        short_number=short_number,
    )


def _read(name: str) -> str:
    return (resources.files("slimvox.report") / name).read_text(encoding="utf-8")


def _title(runs: Sequence[RunRecord]) -> str:
    return runs[0].label if len(runs) == 1 else f"{len(runs)} runs compared"


def _dense(runs: Sequence[RunRecord]) -> Mapping[str, Any] | None:
    """Dense model that all runs started from; None if it differs."""
    known = [run.dense for run in runs if run.dense is not None]
    if not known or any(dense != known[0] for dense in known):
        return None
    return {
        "family": known[0].family,
        "layers": len(known[0].layers),
        "width": known[0].width,
        "parameters": parameters(known[0]),
        "macs": macs(known[0]),
    }


def _anatomy_rows(
    cut: Sequence[RunRecord], runs: Sequence[RunRecord], series: Mapping[str, int]
) -> list[PanelRow]:
    panels = [
        anatomy_panels(run.anatomy, run.dense)
        for run in cut
        if run.anatomy is not None and run.dense is not None
    ]
    if len(runs) == 1:
        return [PanelRow(title="", panels=[("", "", panel) for panel in each]) for each in panels]
    return [
        PanelRow(
            title=of_all[0].title,
            panels=[
                (series_class(series[run.label]), run.label, panel)
                for run, panel in zip(cut, of_all, strict=True)
            ],
        )
        for of_all in zip(*panels, strict=True)
    ]


def _gate_rows(runs: Sequence[RunRecord], series: Mapping[str, int]) -> list[PanelRow]:
    by_run = {run.label: {panel.title: panel for panel in gate_panels(run)} for run in runs}
    titles = list(dict.fromkeys(title for panels in by_run.values() for title in panels))
    if len(runs) == 1:
        return [PanelRow(title="", panels=[("", "", panel) for panel in by_run[runs[0].label].values()])]
    return [
        PanelRow(
            title=title,
            panels=[
                (series_class(series[label]), label, panels[title])
                for label, panels in by_run.items()
                if title in panels
            ],
        )
        for title in titles
    ]


def _why_no_gates(run: RunRecord) -> str:
    if run.control:
        return f"{run.label} is a control ({run.control}): it has no stage 1 in which gates would learn."
    if not run.stage("prune"):
        return f"{run.label} has no log of a stage 1."
    return f"{run.label} was made by a slimvox that did not log its gates."
