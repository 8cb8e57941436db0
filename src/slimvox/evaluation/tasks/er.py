"""ER: Emotion recognition."""

from __future__ import annotations

from slimvox.evaluation.tasks.base import Metric
from slimvox.evaluation.tasks.classification import ClassificationTask


class EmotionRecognition(ClassificationTask):
    """Emotion recognition."""

    name = "er"
    title = "emotion recognition"
    metrics = (Metric(name="er", title="accuracy", higher_is_better=True),)
