"""All classes in one place: what `auto_map` in `config.json` points to, and what is registered."""

from slimvox.hf.configuration import SlimvoxConfig
from slimvox.hf.heads import (
    SlimvoxForAudioFrameClassification,
    SlimvoxForCTC,
    SlimvoxForSequenceClassification,
    SlimvoxForXVector,
)
from slimvox.hf.modeling import SlimvoxModel, SlimvoxOutput

__all__ = [
    "SlimvoxConfig",
    "SlimvoxForAudioFrameClassification",
    "SlimvoxForCTC",
    "SlimvoxForSequenceClassification",
    "SlimvoxForXVector",
    "SlimvoxModel",
    "SlimvoxOutput",
]
