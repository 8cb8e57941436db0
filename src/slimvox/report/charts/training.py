"""Charts of loss, sparsity, multipliers and other quantities over both stages."""

from __future__ import annotations

from collections.abc import Sequence

from slimvox.losses import losses
from slimvox.report.charts.lines import Curve, line_chart
from slimvox.report.charts.svg import Panel
from slimvox.report.runs import RunRecord

OVERALL = ("distillation", "Distillation loss", True)
OTHERS = (
    ("sparsity", "Expected sparsity", True),
    ("lambda1", "Multiplier λ₁ of the sparsity gap", False),
    ("lambda2", "Multiplier λ₂ of its square", False),
    ("gradient_norm", "Gradient norm of the weights", True),
    ("learning_rate", "Learning rate of the weights", True),
)
"""Key in the log, title, whether the axis starts at 0; losses are looked up in their registry."""
NOISY = ("distillation", "gradient_norm")
FEW = 3
"""Maximum number of runs for which curves of noisy quantities have bands."""


def training_panels(runs: Sequence[RunRecord]) -> tuple[Panel, ...]:
    """A panel for each quantity that any of the runs logged; all runs in one frame, coloured by their order."""
    panels = []
    marks = sorted({float(run.surgery_step) for run in runs if run.surgery_step and run.stage("finish")})
    terms = ((loss.name, f"Distillation loss: {loss.title}", True) for loss in losses())
    for key, title, from_zero in (OVERALL, *terms, *OTHERS):
        curves = []
        for index, run in enumerate(runs):
            curve = _curve(run, key, index, band=key in NOISY and len(runs) <= FEW)
            curves += [] if curve is None else [curve]
            target = _curve(run, "target_sparsity", index, band=False) if key == "sparsity" else None
            if target is not None and len(target.values):
                curves.append(target)
        if not curves:
            continue
        only_first = all(not curve.breaks for curve in curves)
        named = [(step, "surgery") for step in marks[:1]] + [(step, "") for step in marks[1:]]
        chart = line_chart(
            curves, f"{title} over steps", marks=() if only_first else named, from_zero=from_zero
        )
        note = "The dashed line is the target of the schedule." if key == "sparsity" else ""
        panels.append(Panel(title=title, chart=chart, note=note))
    return tuple(panels)


def _curve(run: RunRecord, key: str, series: int, *, band: bool) -> Curve | None:
    offsets = {"prune": 0, "finish": run.surgery_step}
    points = [
        (record["step"] + offsets[record["stage"]], float(record[key])) for record in run.log if key in record
    ]
    if not points:
        return None
    both = any(key in record for record in run.stage("finish")) and run.surgery_step
    return Curve(
        label=run.label,
        series=series,
        steps=[step for step, _ in points],
        values=[value for _, value in points],
        dashed=key == "target_sparsity",
        band=band,
        breaks=(run.surgery_step,) if both else (),
    )
