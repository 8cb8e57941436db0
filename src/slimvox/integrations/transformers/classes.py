"""All classes in one place: what `auto_map` in `config.json` points to, and what is registered."""

from slimvox.integrations.transformers.configuration import SlimvoxConfig
from slimvox.integrations.transformers.heads import (
    SlimvoxForAudioFrameClassification,
    SlimvoxForCTC,
    SlimvoxForSequenceClassification,
    SlimvoxForXVector,
)
from slimvox.integrations.transformers.modeling import SlimvoxModel, SlimvoxOutput

__all__ = [
    "SlimvoxConfig",
    "SlimvoxForAudioFrameClassification",
    "SlimvoxForCTC",
    "SlimvoxForSequenceClassification",
    "SlimvoxForXVector",
    "SlimvoxModel",
    "SlimvoxOutput",
]
