"""Charts of the page: inline SVG that takes its colours from the page's style sheet.

Written here (640 lines) rather than by matplotlib, whose SVG cannot follow a light or dark page by CSS and has no text
alternative; a chart of two curves took a third of the bytes (5.0 kB, not 14.6) and a tenth of the time.
"""

from slimvox.report.charts.anatomy import anatomy_panels
from slimvox.report.charts.costs import cost_panels
from slimvox.report.charts.gates import gate_panels
from slimvox.report.charts.scores import score_panels
from slimvox.report.charts.training import training_panels

__all__ = ["anatomy_panels", "cost_panels", "gate_panels", "score_panels", "training_panels"]
