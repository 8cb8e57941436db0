"""The paper's figures and the Pareto front, from measured runs, as SVG and PNG."""

from slimvox.report.figures.draw import FiguresResult, draw_figures
from slimvox.report.figures.quality import Quality, choose_quality

__all__ = ["FiguresResult", "Quality", "choose_quality", "draw_figures"]
