"""Encoders of finished runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from arms import Arm
from low_rank import factorised

from slimvox.checkpoint import load
from slimvox.encoder import SpeechEncoder


def save_low_rank(folder: Path, encoder: SpeechEncoder, ranks: Mapping[str, int]) -> None:
    """Write the ranks and weights of an encoder with low-rank maps."""
    (folder / "ranks.json").write_text(json.dumps(ranks, indent=1))
    torch.save(encoder.state_dict(), folder / "encoder.pt")


def load_low_rank(folder: Path, teacher: SpeechEncoder) -> tuple[SpeechEncoder, dict[str, int]]:
    """An encoder with low-rank maps, and its ranks."""
    ranks: dict[str, int] = json.loads((folder / "ranks.json").read_text())
    encoder = factorised(teacher, ranks)
    encoder.load_state_dict(torch.load(folder / "encoder.pt", weights_only=True))
    return encoder.eval().requires_grad_(False), ranks


def load_encoder(arm: Arm, folder: Path, teacher: SpeechEncoder) -> SpeechEncoder | None:
    """The encoder of a finished run; None if the run is not finished."""
    if arm.low_rank:
        return load_low_rank(folder, teacher)[0] if (folder / "encoder.pt").is_file() else None
    return load(folder) if (folder / "config.json").is_file() else None
