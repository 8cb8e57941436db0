"""KS: Keyword spotting."""

from __future__ import annotations

from slimvox.evaluation.tasks.base import Metric
from slimvox.evaluation.tasks.classification import ClassificationTask


class KeywordSpotting(ClassificationTask):
    """Keyword spotting."""

    name = "ks"
    title = "keyword spotting"
    metrics = (Metric(name="ks", title="accuracy", higher_is_better=True),)
