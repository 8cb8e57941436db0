"""Every registered family, and one defined outside the package, goes through reading, pruning, writing and export."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModel

import models
import slimvox
from extending.parrot import PARROT
from missing_packages import exports
from slimvox.checkpoint import write_slimvox_directory
from slimvox.checkpoint.transformers_config import anatomy_from_config, transformers_config
from slimvox.encoder import SpeechEncoder
from slimvox.families import families, register_family, unregister_family
from slimvox.pruning.surgery import slice_encoder
from slimvox.structures import Address
from slimvox.structures.anatomy import EncoderAnatomy

SAMPLES = 1500


def waveforms() -> tuple[Tensor, Tensor]:
    """Two clips, the second shorter, and their mask."""
    mask = torch.arange(SAMPLES) < torch.tensor([[SAMPLES], [900]])
    return torch.randn(2, SAMPLES, generator=torch.Generator().manual_seed(0)) * mask, mask


def states(model: torch.nn.Module) -> Tensor:
    """All hidden states of `waveforms`, padding left out."""
    with torch.inference_mode():
        output = model(*waveforms())
    return torch.stack([each[output.frame_mask] for each in output.hidden_states])


def masks(anatomy: EncoderAnatomy) -> dict[Address, Tensor]:
    """Other taps of each positional convolution, and some dimensions of every other kind."""
    chosen = {Address("head", 0): torch.tensor([1.0, 0, 1, 1])}
    for index in range(anatomy.position_layers):
        taps = torch.arange(anatomy.position_kernel)
        chosen[Address("position", index)] = ((taps + index) % 3 > 0).float() * 0.5
    for index, layer in enumerate(anatomy.layers):
        chosen[Address("intermediate", index)] = (torch.arange(layer.intermediate) % (2 + index) > 0).float()
    return chosen


def pruned(family: str, path: Path) -> SpeechEncoder:
    """A tiny encoder, pruned."""
    encoder = slimvox.load(models.directory(path, family))
    return slice_encoder(encoder, masks(encoder.anatomy)).encoder.eval()


@pytest.mark.parametrize("family", models.FAMILIES)
def test_a_pruned_encoder_is_saved_and_loaded(family: str, tmp_path: Path) -> None:
    encoder = pruned(family, tmp_path / "dense")
    assert len(encoder.anatomy.position_taps) == encoder.anatomy.position_layers
    write_slimvox_directory(encoder, tmp_path / "ours", kept_indices={}, model_card="")
    loaded = slimvox.load(tmp_path / "ours")
    assert (loaded.anatomy, loaded.dense_anatomy) == (encoder.anatomy, encoder.dense_anatomy)
    assert torch.equal(states(loaded), states(encoder))
    model = AutoModel.from_pretrained(tmp_path / "ours", output_hidden_states=True)
    assert torch.equal(states(model), states(encoder))


@pytest.mark.parametrize("layout", models.LAYOUTS)
@pytest.mark.parametrize("family", models.FAMILIES)
def test_the_fields_of_a_configuration_are_one_map_in_both_directions(family: str, layout: str) -> None:
    config = models.config(family, layout)
    anatomy = anatomy_from_config(config.to_dict(), "test", normalize_waveform=False)
    back = transformers_config(anatomy)
    assert type(back) is type(config)
    assert anatomy_from_config(back.to_dict(), "test", normalize_waveform=False) == anatomy
    assert EncoderAnatomy.from_dict(json.loads(json.dumps(anatomy.to_dict()))) == anatomy


@exports("onnx")
def test_stacked_positional_convolutions_are_exported(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    encoder = pruned("data2vec-audio", tmp_path / "dense")
    write_slimvox_directory(encoder, tmp_path / "ours", kept_indices={}, model_card="")
    result = slimvox.export_encoder(tmp_path / "ours", mask=True)
    assert result.worst_difference < 1e-4
    session = onnxruntime.InferenceSession(str(result.path), providers=["CPUExecutionProvider"])
    clips, mask = waveforms()
    *found, speech = session.run(None, {"waveforms": clips.numpy(), "attention_mask": mask.numpy()})
    exported = torch.stack([torch.from_numpy(each[speech]) for each in found])
    torch.testing.assert_close(exported, states(encoder), atol=1e-4, rtol=1e-3)


@pytest.fixture
def parrot() -> Iterator[None]:
    register_family(PARROT)
    yield
    unregister_family("parrot")


def make_parrot(path: Path) -> SpeechEncoder:
    """A checkpoint of the toy family, and the same encoder as a HuBERT."""
    hubert = models.model("hubert", "large", head="ctc", feat_proj_layer_norm=False)
    hubert.save_pretrained(path / "hubert")
    expected = slimvox.load(path / "hubert")
    config = json.loads((path / "hubert" / "config.json").read_text())
    for name in ("feat_proj_layer_norm", "feat_extract_norm"):
        del config[name]
    tensors = {
        name.replace("hubert.", "parrot.").replace("encoder.layers.", "encoder.blocks."): tensor
        for name, tensor in load_file(path / "hubert" / "model.safetensors").items()
    }
    (path / "parrot").mkdir()
    (path / "parrot" / "config.json").write_text(json.dumps({**config, "model_type": "parrot"}))
    save_file(tensors, path / "parrot" / "model.safetensors")
    return expected


@pytest.mark.usefixtures("parrot")
def test_a_family_defined_outside_is_read_and_its_encoders_need_it_no_more(tmp_path: Path) -> None:
    expected = make_parrot(tmp_path)
    encoder = slimvox.load(tmp_path / "parrot")
    assert encoder.anatomy.family == "parrot"
    assert torch.equal(states(encoder), states(expected))
    write_slimvox_directory(encoder, tmp_path / "ours", kept_indices={}, model_card="")
    unregister_family("parrot")
    assert torch.equal(states(slimvox.load(tmp_path / "ours")), states(expected))
    register_family(PARROT)


def test_an_unknown_family_is_one_sentence_with_those_that_are_known(tmp_path: Path) -> None:
    make_parrot(tmp_path)
    known = ", ".join(family.model_type for family in families())
    with pytest.raises(slimvox.SlimvoxError, match=f"must be one of {known}, but is 'parrot' instead$"):
        slimvox.load(tmp_path / "parrot")


def test_a_registration_that_cannot_work_is_refused() -> None:
    from dataclasses import replace

    with pytest.raises(ValueError, match="'wavlm' is registered already"):
        register_family(replace(PARROT, model_type="wavlm"))
    with pytest.raises(ValueError, match="names colour, which EncoderAnatomy does not have"):
        register_family(replace(PARROT, constants={"colour": "green"}))
