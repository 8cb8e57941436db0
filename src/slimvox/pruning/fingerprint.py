"""Fingerprint of a run: the settings that a resuming command must share."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import torch
from accelerate import Accelerator

from slimvox.pruning.result import RunSettings


def fingerprint(settings: RunSettings, accelerator: Accelerator) -> dict[str, Any]:
    """Fingerprint of a run, as JSON types."""
    encoder = settings.model.encoder
    digest = hashlib.sha256(json.dumps(encoder.anatomy.to_dict()).encode())
    for name, tensor in sorted(encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().view(torch.uint8).numpy())
    return {
        "model": digest.hexdigest(),
        "audio": settings.audio.fingerprint,
        **output_fingerprint(settings),
        "sizes": list(settings.sizes),
        "seed": settings.seed,
        "control": settings.control,
        "precision": accelerator.mixed_precision,
        **({"parts": list(settings.parts.replaced)} if settings.parts.replaced else {}),
    }


def output_fingerprint(settings: RunSettings) -> dict[str, Any]:
    """Part of the fingerprint in which the outputs of one run differ."""
    return {"recipe": settings.recipe.to_dict(), "target": settings.budget.target}
