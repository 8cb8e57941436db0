"""Modules that replace others, or hook into them, take effect: nothing reads the weights directly."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForCTC

import slimvox
from slimvox.checkpoint import on_disk

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj", "intermediate_dense", "output_dense")


class Adapted(nn.Module):
    """A module with something small and learned beside it."""

    def __init__(self, base: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.base, self.change = base, change

    def forward(self, x: Tensor) -> Tensor:
        return self.change(self.base(x))


def paths(model: nn.Module) -> list[str]:
    """Every linear map and convolution of the encoder."""
    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv1d)]


@pytest.mark.parametrize("kind", ["module", "hook", "forward"])
def test_every_module_can_be_adapted(pruned: Path, kind: str) -> None:
    waveforms = torch.randn(2, 3000)
    names = paths(slimvox.load(pruned))
    assert {name.rpartition(".")[2] for name in names} > {*PROJECTIONS, "conv", "projection"}
    for name in names:
        encoder = slimvox.load(pruned)
        calls = []

        def change(y: Tensor, calls: list[Any] = calls) -> Tensor:
            calls.append(y.shape)
            return y * 1.5

        before = encoder(waveforms).last_hidden_state
        module = encoder.get_submodule(name)
        if kind == "module":
            parent, _, last = name.rpartition(".")
            setattr(encoder.get_submodule(parent), last, Adapted(module, change))
        elif kind == "hook":
            module.register_forward_hook(lambda _, __, y, change=change: change(y))
        else:
            forward = module.forward
            module.forward = lambda x, forward=forward, change=change: change(forward(x))
        with torch.inference_mode():
            after = encoder(waveforms).last_hidden_state
        assert calls, name
        # A scale of what the first norm, or the softmax over one frame, takes out again would not show: these do.
        if name.endswith(("v_proj", "out_proj", "dense", "projection")):
            assert not torch.allclose(before, after, atol=1e-4), name


def test_an_adapted_projection_of_unequal_heads_computes_what_the_merged_one_does(pruned: Path) -> None:
    waveforms = torch.randn(2, 3000)
    adapted, merged = slimvox.load(pruned), slimvox.load(pruned)
    for name in ("q_proj", "k_proj", "v_proj"):
        attention = adapted.layers[0].attention
        projection = getattr(attention, name)
        delta = 0.3 * torch.randn_like(projection.weight)
        low_rank = nn.Linear(projection.in_features, projection.out_features, bias=False)
        low_rank.weight.data.copy_(delta)
        wrapper = Adapted(projection, lambda y: y)
        wrapper.forward = lambda x, a=projection, b=low_rank: a(x) + b(x)
        setattr(attention, name, wrapper)
        with torch.no_grad():
            getattr(merged.layers[0].attention, name).weight.add_(delta)
    ours, theirs = adapted(waveforms).hidden_states, merged(waveforms).hidden_states
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(ours[-1], slimvox.load(pruned)(waveforms).last_hidden_state, atol=1e-3)


def test_lora(pruned: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    waveforms = torch.randn(2, 3000)
    plain = AutoModelForCTC.from_pretrained(pruned, vocab_size=7).eval()
    before = plain(waveforms).logits
    model = peft.get_peft_model(plain, peft.LoraConfig(target_modules=list(PROJECTIONS), r=2))
    torch.testing.assert_close(model.eval()(input_values=waveforms).logits, before)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5)
    model.train()(input_values=waveforms, labels=torch.tensor([[1, 2], [3, 4]])).loss.backward()
    learned = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name.rpartition(".lora_")[0].rpartition(".")[2] for name in learned} == set(PROJECTIONS)
    for name, parameter in learned.items():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    adapted = model.eval()(input_values=waveforms).logits
    assert not torch.allclose(adapted, before, atol=1e-2)
    merged = model.merge_and_unload()
    torch.testing.assert_close(merged(waveforms).logits, adapted, atol=1e-5, rtol=1e-4)
    merged.save_pretrained(tmp_path)
    again = AutoModelForCTC.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(again(waveforms).logits, merged(waveforms).logits)


@pytest.mark.parametrize("kind", ["encoder", "AutoModel"])
def test_an_encoder_with_adapters_is_merged_before_it_is_saved(
    kind: str, pruned: Path, tmp_path: Path
) -> None:
    peft = pytest.importorskip("peft")
    encoder = slimvox.load(pruned) if kind == "encoder" else AutoModel.from_pretrained(pruned)
    model = peft.get_peft_model(encoder, peft.LoraConfig(target_modules=["q_proj", "v_proj"], r=2))
    for each in (model, encoder):
        with (
            pytest.raises(slimvox.SlimvoxError, match=r"merge adapters first, by `merge_and_unload"),
            on_disk(each),
        ):
            pass
    with pytest.raises(slimvox.SlimvoxError, match="merge adapters first"):
        encoder.as_encoder().save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
    merged = model.merge_and_unload()
    merged.as_encoder().save_pretrained(tmp_path / "saved")
    assert slimvox.load(tmp_path / "saved").anatomy == encoder.anatomy


@pytest.mark.filterwarnings("ignore")  # torch announces that this way of quantising will be replaced
def test_a_quantised_encoder_is_not_saved(pruned: Path, tmp_path: Path) -> None:
    encoder = torch.ao.quantization.quantize_dynamic(slimvox.load(pruned), {nn.Linear}, dtype=torch.qint8)
    with pytest.raises(slimvox.SlimvoxError, match="use the encoder before it was quantised"):
        encoder.save_pretrained(tmp_path / "saved")


def test_compiled_layers_are_saved_under_their_own_names(pruned: Path, tmp_path: Path) -> None:
    encoder = slimvox.load(pruned)
    names = {*encoder.state_dict()}
    layer = encoder.layers[0]
    encoder.layers[0] = nn.Module()  # as `torch.compile(layer)`
    encoder.layers[0].add_module("_orig_mod", layer)
    encoder.save_pretrained(tmp_path)
    assert {*load_file(tmp_path / "model.safetensors")} == names != {*encoder.state_dict()}


def test_an_adapter_is_saved_and_loaded_on_its_own(pruned: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    waveforms = torch.randn(1, 3000)
    config = peft.LoraConfig(target_modules=["q_proj", "v_proj"], r=2, init_lora_weights=False)
    model = peft.get_peft_model(AutoModel.from_pretrained(pruned), config).eval()
    model.save_pretrained(tmp_path)
    again = peft.PeftModel.from_pretrained(AutoModel.from_pretrained(pruned), tmp_path).eval()
    with torch.no_grad():
        ours, theirs = (each(input_values=waveforms).last_hidden_state for each in (model, again))
        plain = slimvox.load(pruned)(waveforms).last_hidden_state
    assert torch.equal(ours, theirs)
    assert not torch.allclose(ours, plain, atol=1e-3)
