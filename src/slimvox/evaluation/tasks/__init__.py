"""The ten tasks, one a file."""

from __future__ import annotations

import importlib
from typing import Any

from slimvox.evaluation.tasks.base import Task

_HOMES = {
    "pr": "PhonemeRecognition",
    "asr": "SpeechRecognition",
    "ks": "KeywordSpotting",
    "qbe": "QueryByExample",
    "sid": "SpeakerIdentification",
    "asv": "SpeakerVerification",
    "sd": "SpeakerDiarization",
    "ic": "IntentClassification",
    "sf": "SlotFilling",
    "er": "EmotionRecognition",
}

TASKS = tuple(_HOMES)
"""Names, in SUPERB's order."""


def task(name: str) -> Task[Any, Any]:
    """A task by its name.

    Raises:
        KeyError: if there is none of that name.
    """
    module = importlib.import_module(f"slimvox.evaluation.tasks.{name}")
    found: Task[Any, Any] = getattr(module, _HOMES[name])()
    return found
