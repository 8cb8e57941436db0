"""Our encoder computes what `transformers` computes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import models
from slimvox.checkpoint.transformers_reader import read_transformers_directory

TOLERANCE = 1e-4
FULL_SIZE: dict[str, dict[str, object]] = {
    "base": {
        "hidden_size": 768,
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "intermediate_size": 3072,
    },
    "large": {
        "hidden_size": 1024,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "intermediate_size": 4096,
    },
}


def worst_difference(reference: object, directory: Path, *, samples: int, padded: bool) -> float:
    """Largest absolute difference over all hidden states, padding left out."""
    encoder = read_transformers_directory(directory).encoder.eval()
    waveforms = torch.randn(3, samples, generator=torch.Generator().manual_seed(1))
    mask = None
    if padded:
        lengths = torch.tensor([samples, int(samples * 0.71), int(samples * 0.4)])
        mask = (torch.arange(samples) < lengths[:, None]).long()
        waveforms = waveforms * mask
    with torch.no_grad():
        theirs = reference(waveforms, attention_mask=mask, output_hidden_states=True)  # type: ignore[operator]
        ours = encoder(waveforms, mask)
    assert len(ours.hidden_states) == len(theirs.hidden_states) == len(encoder.anatomy.layers) + 1
    valid = ours.frame_mask
    pairs = [
        *zip(ours.hidden_states, theirs.hidden_states, strict=True),
        (ours.last_hidden_state, theirs.last_hidden_state),
    ]
    return max(float((a - b)[valid].abs().max()) for a, b in pairs)


@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("layout", models.LAYOUTS)
@pytest.mark.parametrize("family", models.FAMILIES)
def test_tiny_models_agree(family: str, layout: str, padded: bool, tmp_path: Path) -> None:
    reference = models.model(family, layout)
    reference.save_pretrained(tmp_path)
    assert worst_difference(reference, tmp_path, samples=4000, padded=padded) < TOLERANCE


def test_hubert_without_projection_norm_agrees(tmp_path: Path) -> None:
    reference = models.model("hubert", feat_proj_layer_norm=False)
    reference.save_pretrained(tmp_path)
    assert worst_difference(reference, tmp_path, samples=4000, padded=True) < TOLERANCE


def test_odd_position_kernel_agrees(tmp_path: Path) -> None:
    reference = models.model("wavlm", num_conv_pos_embeddings=15)
    reference.save_pretrained(tmp_path)
    assert worst_difference(reference, tmp_path, samples=4000, padded=False) < TOLERANCE


def test_wavlm_positions_beyond_the_last_bucket_agree(tmp_path: Path) -> None:
    reference = models.model("wavlm", num_buckets=16, max_bucket_distance=20)
    reference.save_pretrained(tmp_path)
    assert worst_difference(reference, tmp_path, samples=3000, padded=False) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("padded", [False, True], ids=["whole", "padded"])
@pytest.mark.parametrize("layout", models.LAYOUTS)
@pytest.mark.parametrize("family", models.FAMILIES)
def test_full_size_models_agree(
    family: str, layout: str, padded: bool, tmp_path: Path, record_property: pytest.RecordProperty
) -> None:
    reference = models.model(family, layout, **{**models.published(family), **FULL_SIZE[layout]})
    reference.save_pretrained(tmp_path)
    worst = worst_difference(reference, tmp_path, samples=48_000, padded=padded)
    print(f"parity {family} {layout} {'padded' if padded else 'whole'}: {worst:.2e}")
    assert worst < TOLERANCE
