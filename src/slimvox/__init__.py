"""slimvox: structured pruning of self-supervised speech encoders.

>>> import slimvox
>>> encoder = slimvox.load("embedded")
>>> result = slimvox.prune("embedded", "speech/", "runs/small")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from slimvox._version import __version__
from slimvox.integrations.auto_classes import register_auto_classes, register_if_imported
from slimvox.util.imports import lazy_attributes

if TYPE_CHECKING:
    from slimvox.checkpoint import load
    from slimvox.checkpoint.carry import carry_head
    from slimvox.comparison.sources import Comparison, compare
    from slimvox.encoder import EncoderOutput, SpeechEncoder
    from slimvox.encoding.arrays import encode
    from slimvox.encoding.encode import encode_files
    from slimvox.evaluation.run import Evaluation, evaluate
    from slimvox.exporters import ExportResult, export, export_encoder
    from slimvox.measure.benchmark import BenchmarkResult, benchmark
    from slimvox.measure.latency import LatencyTable, measure_latency
    from slimvox.pruning import Pruner, PruneResult, RunInterrupted, prune
    from slimvox.report import ReportResult, make_report
    from slimvox.report.figures import FiguresResult, draw_figures
    from slimvox.structures.anatomy import EncoderAnatomy
    from slimvox.util.errors import SlimvoxError

__all__ = [
    "BenchmarkResult",
    "Comparison",
    "EncoderAnatomy",
    "EncoderOutput",
    "Evaluation",
    "ExportResult",
    "FiguresResult",
    "LatencyTable",
    "PruneResult",
    "Pruner",
    "ReportResult",
    "RunInterrupted",
    "SlimvoxError",
    "SpeechEncoder",
    "__version__",
    "benchmark",
    "carry_head",
    "compare",
    "draw_figures",
    "encode",
    "encode_files",
    "evaluate",
    "export",
    "export_encoder",
    "load",
    "make_report",
    "measure_latency",
    "prune",
    "register_auto_classes",
]

_HOMES = {
    "BenchmarkResult": "slimvox.measure.benchmark",
    "Comparison": "slimvox.comparison.sources",
    "EncoderAnatomy": "slimvox.structures.anatomy",
    "EncoderOutput": "slimvox.encoder",
    "Evaluation": "slimvox.evaluation.run",
    "ExportResult": "slimvox.exporters",
    "FiguresResult": "slimvox.report.figures",
    "LatencyTable": "slimvox.measure.latency",
    "PruneResult": "slimvox.pruning",
    "Pruner": "slimvox.pruning",
    "ReportResult": "slimvox.report",
    "RunInterrupted": "slimvox.pruning",
    "SlimvoxError": "slimvox.util.errors",
    "SpeechEncoder": "slimvox.encoder",
    "benchmark": "slimvox.measure.benchmark",
    "carry_head": "slimvox.checkpoint.carry",
    "compare": "slimvox.comparison.sources",
    "draw_figures": "slimvox.report.figures",
    "encode": "slimvox.encoding.arrays",
    "encode_files": "slimvox.encoding.encode",
    "evaluate": "slimvox.evaluation.run",
    "export": "slimvox.exporters",
    "export_encoder": "slimvox.exporters",
    "load": "slimvox.checkpoint",
    "make_report": "slimvox.report",
    "measure_latency": "slimvox.measure.latency",
    "prune": "slimvox.pruning",
}


# `slimvox --help` does not wait for torch.
__getattr__ = lazy_attributes(__name__, _HOMES)

register_if_imported()
