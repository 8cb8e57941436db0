"""An evaluation task that is not part of slimvox: the speaker's gender. docs/extending/task.md explains it."""

from __future__ import annotations

import dataclasses

from slimvox.evaluation.manifests import labelled_set
from slimvox.evaluation.tasks import ClassificationTask, Metric
from slimvox.evaluation.tasks.classification import MINI_CLASSIFICATION

GENDER = ClassificationTask(
    name="gender",
    title="gender identification",
    metrics=(Metric(name="gender", title="accuracy", higher_is_better=True),),
    protocols={
        "official": dataclasses.replace(MINI_CLASSIFICATION, steps=2000, evaluations=10),
        "mini": dataclasses.replace(MINI_CLASSIFICATION, balanced=True),
    },
    read_table=labelled_set,
)
