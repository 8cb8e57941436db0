"""Evaluation tasks, one per file; see `docs/extending/task.md` for how to add one."""

from __future__ import annotations

from typing import Any

from slimvox.evaluation.tasks.asr import ASR
from slimvox.evaluation.tasks.asv import ASV
from slimvox.evaluation.tasks.base import HeadTask, Metric, Scores, Task
from slimvox.evaluation.tasks.classification import ER, IC, KS, SID, ClassificationTask
from slimvox.evaluation.tasks.pr import PR
from slimvox.evaluation.tasks.qbe import QBE
from slimvox.evaluation.tasks.sd import SD
from slimvox.evaluation.tasks.sf import SF
from slimvox.evaluation.tasks.transcription import TRANSCRIPTION
from slimvox.util.registry import Registry

SUPERB: tuple[Task[Any, Any], ...] = (PR, ASR, KS, QBE, SID, ASV, SD, IC, SF, ER)
"""The ten tasks that count in `superb_s` and `mean11`, in SUPERB's order. Tasks that are registered later do not."""


def _check_task(task: Task[Any, Any]) -> None:
    """Raise ValueError if the name of a metric is taken."""
    names = {metric.name for metric in task.metrics}
    for other in tasks():
        if names & {metric.name for metric in other.metrics}:
            raise ValueError(f"a task {other.name!r} with one of the metrics {names} is registered already")


_TASKS: Registry[Task[Any, Any]] = Registry("task", check=_check_task)
register_task = _TASKS.register
unregister_task = _TASKS.unregister
task = _TASKS.find
tasks = _TASKS.all
task_names = _TASKS.names

for _task in (*SUPERB, TRANSCRIPTION):
    register_task(_task)

__all__ = [
    "SUPERB",
    "TRANSCRIPTION",
    "ClassificationTask",
    "HeadTask",
    "Metric",
    "Scores",
    "Task",
    "register_task",
    "task",
    "task_names",
    "tasks",
    "unregister_task",
]
