"""Encoders that lost whole structures: nothing is stored or trained for what is gone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from transformers import AutoModel, AutoModelForCTC
from transformers.dynamic_module_utils import get_class_from_dynamic_module

import slimvox
from drawn import anatomies, masks_for, odd_encoder, random_encoder
from nightly import examples
from slimvox.checkpoint import write_slimvox_directory
from slimvox.costs import parameters
from slimvox.encoder import SpeechEncoder
from slimvox.pruning.controls import magnitudes
from slimvox.pruning.gates import GateLayout
from slimvox.pruning.masks import masked_forward
from slimvox.pruning.surgery import slice_encoder
from slimvox.structures import Address, structure_names
from slimvox.structures.anatomy import EncoderAnatomy
from slimvox.structures.units import units

EMPTY = {  # of `odd_encoder`, as earlier versions stored them
    "layers.2.attention.q_proj.weight": (0, 16),
    "layers.2.attention.q_proj.bias": (0,),
    "layers.2.attention.k_proj.weight": (0, 16),
    "layers.2.attention.k_proj.bias": (0,),
    "layers.2.attention.v_proj.weight": (0, 16),
    "layers.2.attention.v_proj.bias": (0,),
    "layers.2.attention.out_proj.weight": (16, 0),
    "layers.2.feed_forward.intermediate_dense.weight": (0, 16),
    "layers.2.feed_forward.intermediate_dense.bias": (0,),
    "layers.2.feed_forward.output_dense.weight": (16, 0),
}


def without_heads(encoder: SpeechEncoder) -> SpeechEncoder:
    """The same encoder with no head left in any layer."""
    masks = {
        Address("head", index): torch.zeros(len(layer.heads))
        for index, layer in enumerate(encoder.anatomy.layers)
        if layer.heads
    }
    return slice_encoder(encoder, masks).encoder


def write(encoder: SpeechEncoder, path: Path, empty: dict[str, Tensor] | None = None) -> Path:
    """A directory, perhaps with tensors in it that earlier versions stored."""
    write_slimvox_directory(encoder, path, kept_indices={}, model_card="")
    if empty is not None:
        tensors = load_file(path / "model.safetensors")
        assert not tensors.keys() & empty.keys()
        save_file({**tensors, **empty}, path / "model.safetensors", metadata={"format": "pt"})
    return path


@settings(max_examples=examples(40))
@given(data=st.data(), anatomy=anatomies(), seed=st.integers(0, 1000))
def test_every_parameter_has_a_part(data: st.DataObject, anatomy: EncoderAnatomy, seed: int) -> None:
    masks = data.draw(masks_for(anatomy))
    encoder = slice_encoder(random_encoder(anatomy, seed), masks).encoder
    output = encoder(torch.randn(2, anatomy.receptive_field + 99))
    output.last_hidden_state.square().sum().backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.numel() and parameter.grad is not None, name
    assert encoder.state_dict().keys() == dict(encoder.named_parameters()).keys()
    assert sum(parameter.numel() for parameter in encoder.parameters()) == parameters(encoder.anatomy)
    assert not encoder.absent_tensors & encoder.state_dict().keys()


def test_the_bias_table_goes_with_the_last_head() -> None:
    encoder = odd_encoder()
    assert encoder.rel_attn_embed is not None
    last = without_heads(encoder)
    assert last.rel_attn_embed is None
    table, readers = 16 * 4, encoder.anatomy.layers
    before = replace(last.anatomy, layers=(readers[1], *last.anatomy.layers[1:]))
    gone = sum(p.numel() for p in SpeechEncoder(before).layers[0].parameters())
    gone -= sum(p.numel() for p in last.layers[0].parameters())
    assert parameters(before) - parameters(last.anatomy) == table + gone


def test_what_has_no_heads_or_no_width_can_be_pruned_again() -> None:
    encoder = without_heads(odd_encoder())
    waveforms = torch.randn(2, 700)
    halved = ("attention", "feed_forward")
    masks = {
        address: torch.full((size,), 0.5 if address.structure in halved else 1.0)
        for address, size in units(encoder.anatomy).sizes.items()
        if address.structure in (*halved, "intermediate")
    }
    with torch.no_grad():
        again = slice_encoder(encoder, masks).encoder
        changed, whole = again(waveforms).last_hidden_state, encoder(waveforms).last_hidden_state
        masked = masked_forward(encoder, masks, waveforms).last_hidden_state
    torch.testing.assert_close(changed, masked)
    assert again.anatomy == encoder.anatomy
    sizes = magnitudes(encoder, GateLayout(encoder.anatomy, structure_names()))
    assert sizes.isfinite().all() and (sizes > 0).sum() >= 14, (
        "channels of three convolutions and five widths"
    )
    torch.testing.assert_close(
        again.layers[2].attention.out_proj.bias, 0.5 * encoder.layers[2].attention.out_proj.bias
    )
    assert not torch.allclose(changed, whole, atol=1e-3)


@pytest.mark.parametrize("headless", [False, True])
def test_directories_of_earlier_versions_still_load(headless: bool, tmp_path: Path) -> None:
    encoder = without_heads(odd_encoder()) if headless else odd_encoder()
    empty = {name: torch.zeros(shape) for name, shape in EMPTY.items()}
    if headless:
        empty |= {
            name.replace("layers.2", f"layers.{layer}"): tensor
            for name, tensor in empty.items()
            for layer in (0, 1)
            if "attention" in name
        }
        empty["rel_attn_embed.weight"] = torch.ones(16, 4)
    directory = write(encoder, tmp_path / "old", empty)
    assert encoder.absent_tensors == empty.keys()
    waveforms = torch.randn(2, 700)
    with torch.no_grad():
        expected = encoder(waveforms).last_hidden_state
        assert torch.equal(slimvox.load(directory)(waveforms).last_hidden_state, expected)
        model, found = AutoModel.from_pretrained(directory, output_loading_info=True)
        assert torch.equal(model(waveforms).last_hidden_state, expected)
        assert not any(found.values()), found
        head, found = AutoModelForCTC.from_pretrained(directory, vocab_size=5, output_loading_info=True)
        assert torch.equal(head.eval().slimvox(waveforms).last_hidden_state, expected)
        assert not found["unexpected_keys"] and found["missing_keys"] == {"lm_head.weight", "lm_head.bias"}
        head.save_pretrained(tmp_path / "new")
    stored = {name.removeprefix("slimvox.") for name in load_file(tmp_path / "new" / "model.safetensors")}
    assert stored == {*encoder.state_dict(), "lm_head.weight", "lm_head.bias"}


def test_the_code_that_travels_loads_them_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    encoder = without_heads(odd_encoder())
    empty = {
        "rel_attn_embed.weight": torch.ones(16, 4),
        "layers.2.attention.q_proj.weight": torch.ones(0, 16),
    }
    directory = write(encoder, tmp_path / "model", empty)
    travelled = get_class_from_dynamic_module("modeling_slimvox.SlimvoxModel", str(directory))
    assert travelled.__module__.startswith("transformers_modules.")
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.bfloat16, 0.2)):
        model, found = travelled.from_pretrained(directory, dtype=dtype, output_loading_info=True)
        assert not any(found.values()), found
        waveforms = torch.randn(2, 700)
        with torch.no_grad():
            ours, theirs = encoder(waveforms).last_hidden_state, model(waveforms).last_hidden_state
        assert theirs.dtype == dtype
        assert (ours - theirs.float()).norm() / ours.norm() < tolerance


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    """This process alone, as a group."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("process_group")
@pytest.mark.parametrize("headless", [False, True])
def test_plain_data_parallel_training_goes_on(headless: bool, tmp_path: Path) -> None:
    encoder = without_heads(odd_encoder()) if headless else odd_encoder()
    directory = write(encoder, tmp_path / "model")
    model: nn.Module = AutoModelForCTC.from_pretrained(directory, vocab_size=5).train()
    parallel = DistributedDataParallel(model)
    optimiser = torch.optim.AdamW(parallel.parameters(), lr=1e-2)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for _ in range(3):
        optimiser.zero_grad()
        parallel(torch.randn(2, 700), labels=torch.tensor([[1, 2], [3, 4]])).loss.backward()
        optimiser.step()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert not torch.equal(parameter, before[name]), name


def test_adapters_find_only_maps_that_are_there() -> None:
    peft = pytest.importorskip("peft")
    maps = {name for name, module in odd_encoder().named_modules() if isinstance(module, nn.Linear)}
    assert {name for name in maps if name.startswith("layers.2.attention")} == {"layers.2.attention.out_proj"}
    targets = ["q_proj", "k_proj", "v_proj", "out_proj", "intermediate_dense", "output_dense"]
    model = peft.get_peft_model(odd_encoder(), peft.LoraConfig(target_modules=targets, r=2))
    model(torch.randn(2, 700)).last_hidden_state.square().sum().backward()
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert learned and all(parameter.grad is not None for parameter in learned)
    merged = model.eval().merge_and_unload()
    assert merged(torch.randn(2, 700)).last_hidden_state.isfinite().all()
