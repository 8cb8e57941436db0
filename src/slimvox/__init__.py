"""slimvox: smaller, faster speech encoders that still serve every downstream task.

>>> import slimvox
>>> encoder = slimvox.load("embedded")
>>> result = slimvox.prune("embedded", "speech/", "runs/small")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from slimvox.integrations.auto_classes import register_with_transformers

if TYPE_CHECKING:
    from slimvox.anatomy import EncoderAnatomy
    from slimvox.checkpoint import load
    from slimvox.comparison import Comparison, compare
    from slimvox.encode import encode_files
    from slimvox.encoder import EncoderOutput, SpeechEncoder
    from slimvox.errors import SlimvoxError
    from slimvox.export import ExportResult, export_encoder
    from slimvox.integrations.transformers.carry import carry_head
    from slimvox.pruning import PruneResult, RunInterrupted, prune

__version__ = "0.1.0"

__all__ = [
    "Comparison",
    "EncoderAnatomy",
    "EncoderOutput",
    "ExportResult",
    "PruneResult",
    "RunInterrupted",
    "SlimvoxError",
    "SpeechEncoder",
    "__version__",
    "carry_head",
    "compare",
    "encode_files",
    "export_encoder",
    "load",
    "prune",
]

_HOMES = {
    "Comparison": "slimvox.comparison",
    "EncoderAnatomy": "slimvox.anatomy",
    "EncoderOutput": "slimvox.encoder",
    "ExportResult": "slimvox.export",
    "PruneResult": "slimvox.pruning",
    "RunInterrupted": "slimvox.pruning",
    "SlimvoxError": "slimvox.errors",
    "SpeechEncoder": "slimvox.encoder",
    "carry_head": "slimvox.integrations.transformers.carry",
    "compare": "slimvox.comparison",
    "encode_files": "slimvox.encode",
    "export_encoder": "slimvox.export",
    "load": "slimvox.checkpoint",
    "prune": "slimvox.pruning",
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that `slimvox --help` does not wait for torch."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


register_with_transformers()
