"""Charts of the page: inline SVG that takes its colours from the page's style sheet."""

from slimvox.report.charts.anatomy import anatomy_panels
from slimvox.report.charts.costs import cost_panels
from slimvox.report.charts.gates import gate_panels
from slimvox.report.charts.scores import score_panels
from slimvox.report.charts.training import training_panels

__all__ = ["anatomy_panels", "cost_panels", "gate_panels", "score_panels", "training_panels"]
