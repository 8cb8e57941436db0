"""A tiny pruned encoder, uneven in every way, as a directory that slimvox wrote."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import drawn
import models
import slimvox
from slimvox.checkpoint import write_slimvox_directory
from slimvox.encoder import SpeechEncoder
from slimvox.structures.parts import HeadAnatomy, LayerAnatomy

CARD = "---\nlicense: mit\nlibrary_name: slimvox\n---\n# A pruned encoder\n"


def pruned_directory(path: Path, family: str, layout: str = "base", *, normalize: bool = False) -> Path:
    """Write one: heads of unequal width, attention gone, all heads gone, feed-forward gone."""
    dense = slimvox.load(models.directory(path.with_name(f"{path.name}-dense"), family, layout)).anatomy
    dense = replace(dense, normalize_waveform=normalize)
    layers = (
        LayerAnatomy(
            attention=True,
            heads=(HeadAnatomy(index=0, qk=3, vo=5), HeadAnatomy(index=2, qk=8, vo=1)),
            feed_forward=True,
            intermediate=7,
        ),
        LayerAnatomy(attention=False, heads=(), feed_forward=True, intermediate=11),
        LayerAnatomy(
            attention=True,
            heads=(HeadAnatomy(index=1, qk=8, vo=8), HeadAnatomy(index=3, qk=8, vo=8)),
            feed_forward=False,
            intermediate=0,
        ),
    )
    anatomy = replace(dense, layers=layers)
    encoder = SpeechEncoder(anatomy, dense)
    encoder.load_state_dict(drawn.random_encoder(anatomy, seed=3).state_dict())
    details = {"teacher": {"name": "tiny", "licence": "mit"}, "run": {"seed": 0}}
    write_slimvox_directory(encoder, path, kept_indices={"conv": []}, model_card=CARD, details=details)
    return path


@pytest.fixture(scope="session")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A WavLM of the base layout."""
    return pruned_directory(tmp_path_factory.mktemp("pruned") / "wavlm", "wavlm")


@pytest.fixture(scope="session")
def pruned_large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wav2vec 2.0 of the large layout, on normalised waveforms."""
    path = tmp_path_factory.mktemp("pruned") / "wav2vec2"
    return pruned_directory(path, "wav2vec2", "large", normalize=True)


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    """Three clips, the second shorter, the third of nothing but padding."""
    lengths = torch.tensor([3000, 1800, 0])
    mask = torch.arange(3000) < lengths[:, None]
    return {"input_values": torch.randn(3, 3000) * mask, "attention_mask": mask.long()}
