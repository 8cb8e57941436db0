"""Which task head a checkpoint holds, told by its configuration alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

HEAD_NAMES = ("ForCTC", "ForSequenceClassification", "ForAudioFrameClassification", "ForXVector")
"""How the names of classes end, `transformers`' and ours, whose head can be carried over and exported."""


def head_name(config: Mapping[str, Any]) -> str | None:
    """One of `HEAD_NAMES`, from a `config.json`; None where its architecture has none of these heads."""
    architectures = config.get("architectures")
    architecture = str(architectures[0]) if isinstance(architectures, list) and architectures else ""
    return next((name for name in HEAD_NAMES if architecture.endswith(name)), None)
