"""SID: Speaker identification."""

from __future__ import annotations

from slimvox.evaluation.tasks.base import Metric
from slimvox.evaluation.tasks.classification import ClassificationTask


class SpeakerIdentification(ClassificationTask):
    """Speaker identification."""

    name = "sid"
    title = "speaker identification"
    metrics = (Metric(name="sid", title="accuracy", higher_is_better=True),)
