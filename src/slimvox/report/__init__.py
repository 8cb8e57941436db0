"""Reports of one or several runs, from the files that they wrote."""

from slimvox.report.page import report_page
from slimvox.report.runs import RunRecord, read_runs
from slimvox.report.score_files import ScoreSet, read_scores
from slimvox.report.speeds import Speed, read_speeds
from slimvox.report.write import ReportResult, make_report

__all__ = [
    "ReportResult",
    "RunRecord",
    "ScoreSet",
    "Speed",
    "make_report",
    "read_runs",
    "read_scores",
    "read_speeds",
    "report_page",
]
