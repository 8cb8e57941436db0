"""Tasks of evaluations, one a file; see `docs/extending/task.md` for how to add one."""

from __future__ import annotations

from typing import Any

from slimvox.evaluation.tasks.asr import ASR
from slimvox.evaluation.tasks.asv import ASV
from slimvox.evaluation.tasks.base import Metric, Scores, Task
from slimvox.evaluation.tasks.classification import ER, IC, KS, SID, ClassificationTask
from slimvox.evaluation.tasks.pr import PR
from slimvox.evaluation.tasks.qbe import QBE
from slimvox.evaluation.tasks.sd import SD
from slimvox.evaluation.tasks.sf import SF
from slimvox.util.errors import SlimvoxError

SUPERB: tuple[Task[Any, Any], ...] = (PR, ASR, KS, QBE, SID, ASV, SD, IC, SF, ER)
"""The ten tasks that count in `superb_s` and `mean11`, in SUPERB's order. Tasks that are registered later do not."""

_REGISTRY: dict[str, Task[Any, Any]] = {}


def register_task(task: Task[Any, Any]) -> Task[Any, Any]:
    """Add a task to the registry; raises `ValueError` if its name or that of a metric is taken."""
    names = {metric.name for metric in task.metrics}
    for other in _REGISTRY.values():
        if task.name == other.name or names & {metric.name for metric in other.metrics}:
            raise ValueError(f"a task named {other.name!r} or its metric is registered already")
    _REGISTRY[task.name] = task
    return task


def unregister_task(name: str) -> None:
    """Remove a task from the registry (for tests and notebooks)."""
    del _REGISTRY[name]


def task(name: str) -> Task[Any, Any]:
    """The registered task of a name.

    Raises:
        SlimvoxError: if there is none.
    """
    if name not in _REGISTRY:
        raise SlimvoxError(f"there is no task {name}; there are {', '.join(_REGISTRY)}")
    return _REGISTRY[name]


def tasks() -> tuple[Task[Any, Any], ...]:
    """All registered tasks, SUPERB's first."""
    return tuple(_REGISTRY.values())


def task_names() -> tuple[str, ...]:
    """Names of all registered tasks."""
    return tuple(_REGISTRY)


for _task in SUPERB:
    register_task(_task)

__all__ = [
    "SUPERB",
    "ClassificationTask",
    "Metric",
    "Scores",
    "Task",
    "register_task",
    "task",
    "task_names",
    "tasks",
    "unregister_task",
]
