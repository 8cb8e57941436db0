"""Parameters and MACs counted from the anatomy are those of the real modules."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import models
from slimvox.checkpoint.transformers_config import anatomy_from_config
from slimvox.checkpoint.transformers_reader import read_transformers_directory
from slimvox.costs import Parameters, macs, parameters
from slimvox.encoder import SpeechEncoder


@pytest.mark.parametrize("layout", models.LAYOUTS)
@pytest.mark.parametrize("family", models.FAMILIES)
def test_parameters_are_exact(family: str, layout: str, tmp_path: Path) -> None:
    reference = models.model(family, layout)
    reference.save_pretrained(tmp_path)
    encoder = read_transformers_directory(tmp_path).encoder
    stored = sum(parameter.numel() for parameter in encoder.parameters())
    assert encoder.parameter_count == stored
    mask_embedding = encoder.anatomy.width
    weight_norm = 0 if encoder.anatomy.position_stack else encoder.anatomy.position_kernel
    assert sum(p.numel() for p in reference.parameters()) == stored + mask_embedding + weight_norm


def test_wavlm_base_has_its_published_size() -> None:
    anatomy = anatomy_from_config({"model_type": "wavlm"}, "defaults", normalize_waveform=False)
    assert parameters(anatomy) == 94_381_936 - 768 - 128
    with torch.device("meta"):
        assert sum(p.numel() for p in SpeechEncoder(anatomy).parameters()) == parameters(anatomy)


def test_blocks_add_up() -> None:
    anatomy = anatomy_from_config({"model_type": "hubert"}, "defaults", normalize_waveform=False)
    costs = Parameters().by_block(anatomy)
    assert costs.total == parameters(anatomy)
    assert {block.layer for block in costs.blocks if block.kind == "attention"} == set(range(12))
    layers = sum(costs.layer(index) for index in range(12))
    assert layers == costs.kind("attention") + costs.kind("feed_forward")


@pytest.mark.parametrize("layout", models.LAYOUTS)
@pytest.mark.parametrize("family", models.FAMILIES)
def test_macs_agree_with_a_counter_on_eager_attention(family: str, layout: str) -> None:
    changes = {"attn_implementation": "eager"} if family != "wavlm" else {}
    reference = models.model(family, layout, **changes)
    seconds = 2.0
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        reference(torch.randn(1, int(16_000 * seconds)))
    anatomy = anatomy_from_config(reference.config.to_dict(), "test", normalize_waveform=False)
    assert macs(anatomy, seconds) == pytest.approx(counter.get_total_flops() / 2, rel=0.005)


def test_hubert_base_has_its_known_macs() -> None:
    anatomy = anatomy_from_config({"model_type": "hubert"}, "defaults", normalize_waveform=False)
    assert macs(anatomy, 10.0) == pytest.approx(74.1e9, rel=0.005)


def test_anatomy_survives_json() -> None:
    anatomy = anatomy_from_config({"model_type": "wavlm"}, "defaults", normalize_waveform=False)
    assert type(anatomy).from_dict(anatomy.to_dict()) == anatomy
    with pytest.raises(ValueError, match="width"):
        type(anatomy).from_dict({**anatomy.to_dict(), "width": 767})
