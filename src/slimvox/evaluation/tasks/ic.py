"""IC: Intent classification: several slots, right when all are."""

from __future__ import annotations

from slimvox.evaluation.tasks.base import Metric
from slimvox.evaluation.tasks.classification import ClassificationTask


class IntentClassification(ClassificationTask):
    """Intent classification: several slots, right when all are."""

    name = "ic"
    title = "intent classification"
    metrics = (Metric(name="ic", title="accuracy", higher_is_better=True),)
