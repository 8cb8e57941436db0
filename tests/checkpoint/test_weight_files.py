"""Weights in every form in which checkpoints come: prefixes, heads, shards, precisions; and in forms that are wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.models.wav2vec2 import modeling_wav2vec2 as wav2vec2
from transformers.models.wavlm import modeling_wavlm as wavlm

import models
import slimvox
from slimvox.checkpoint import load_model, write_slimvox_directory
from slimvox.checkpoint.carry import load_with_head
from slimvox.checkpoint.tensors import weight_files
from slimvox.util.errors import NotFiniteError

Tensors = dict[str, Tensor]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bare WavLM, saved by `transformers`."""
    return models.directory(tmp_path_factory.mktemp("original"), "wavlm")


@pytest.fixture
def changed(original: Path, tmp_path: Path) -> Callable[[Callable[[Tensors], Tensors]], Path]:
    """Makes a copy of `original` with other tensors."""

    def change(edit: Callable[[Tensors], Tensors]) -> Path:
        directory = tmp_path / "changed"
        directory.mkdir()
        shutil.copy(original / "config.json", directory)
        tensors = edit(load_file(original / "model.safetensors"))
        save_file({name: tensor.clone() for name, tensor in tensors.items()}, directory / "model.safetensors")
        return directory

    return change


def states(encoder: Any) -> Tensor:
    with torch.no_grad():
        output = encoder(torch.randn(1, 3000, generator=torch.Generator().manual_seed(0)))
    return torch.stack(output.hidden_states)


def renamed(prefix: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {prefix + name: tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize(
    "prefix",
    [
        "wavlm.",
        "hubert.",
        "model.",
        "model.wav2vec2.",
        "encoder.",
        "feature_extractor.",
        "_orig_mod.",
        "module._orig_mod.wavlm.",
        "wavlm._orig_mod.module.",
    ],
)
def test_the_encoder_is_found_below_any_prefix(prefix: str, original: Path, changed: Any) -> None:
    directory = changed(renamed(prefix))
    assert torch.equal(states(slimvox.load(directory)), states(slimvox.load(original)))


def test_wrappers_within_names_are_left_out(original: Path, changed: Any) -> None:
    """Single layers may have been compiled or wrapped for activation checkpointing."""
    directory = changed(
        lambda tensors: {
            name.replace("layers.1.", "layers.1._checkpoint_wrapped_module._orig_mod."): tensor
            for name, tensor in tensors.items()
        }
    )
    assert torch.equal(states(slimvox.load(directory)), states(slimvox.load(original)))


def test_of_several_encoders_the_one_of_the_family_is_taken(original: Path, changed: Any) -> None:
    directory = changed(
        lambda tensors: {
            **renamed("ema.")({name: tensor + 1 for name, tensor in tensors.items()}),
            **renamed("wavlm.")(tensors),
        }
    )
    assert torch.equal(states(slimvox.load(directory)), states(slimvox.load(original)))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda t: {**renamed("a.")(t), **renamed("b.")(t)},
            "one encoder, but there are encoders at 'a.', 'b.'",
        ),
        (lambda t: {"lm_head.weight": torch.ones(2)}, "no feature_extractor.conv_layers.0.conv.weight"),
        (lambda t: {**t, **renamed("module.")(t)}, "twice, once as module."),
        (lambda t: {**t, "encoder.layers.0.lora_A.weight": torch.ones(2)}, "unknown: layers.0.lora_A.weight"),
        (
            lambda t: {n: v for n, v in t.items() if "v_proj.bias" not in n},
            "missing: layers.0.attention.v_proj.bias",
        ),
        (
            lambda t: {n: v.to(torch.int8) for n, v in t.items()},
            "floating-point numbers, but holds torch.int8",
        ),
        (lambda t: {n: v.double() * 1e300 for n, v in t.items()}, "NaN or infinite"),
    ],
)
def test_weights_that_are_not_those_of_one_encoder_are_refused(
    edit: Callable[[Tensors], Tensors], message: str, changed: Any
) -> None:
    with pytest.raises(slimvox.SlimvoxError, match=message):
        slimvox.load(changed(edit))


def test_a_nan_in_the_weights_is_named(changed: Any) -> None:
    def poison(tensors: Tensors) -> Tensors:
        tensors["encoder.layers.1.final_layer_norm.weight"][3] = torch.nan
        return tensors

    with pytest.raises(NotFiniteError, match=r"`encoder\.layers\.1\.final_layer_norm\.weight` holds NaN"):
        slimvox.load(changed(poison))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_any_precision_become_float32(dtype: torch.dtype, original: Path, changed: Any) -> None:
    encoder = slimvox.load(changed(lambda t: {name: tensor.to(dtype) for name, tensor in t.items()}))
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}
    torch.testing.assert_close(states(encoder), states(slimvox.load(original)), atol=0.1, rtol=0.1)


def test_an_encoder_is_taken_out_of_a_speaker_model_with_a_feature_extractor_of_its_own(
    tmp_path: Path,
) -> None:
    """The x-vector head has a module `feature_extractor`, as the encoder has."""
    torch.manual_seed(0)
    fields = {"tdnn_dim": (8, 6), "tdnn_kernel": (3, 1), "tdnn_dilation": (2, 1), "xvector_output_dim": 5}
    reference = wavlm.WavLMForXVector(models.config("wavlm", **fields)).eval()
    reference.save_pretrained(tmp_path / "speaker")
    reference.wavlm.save_pretrained(tmp_path / "bare")
    loaded = load_model(tmp_path / "speaker")
    assert torch.equal(states(loaded.encoder), states(slimvox.load(tmp_path / "bare")))
    assert set(loaded.head_modules) >= {"projector", "feature_extractor", "classifier", "tdnn.0.kernel"}
    waveforms = torch.randn(2, 3000)
    with torch.no_grad():
        ours, theirs = load_with_head(tmp_path / "speaker")(waveforms), reference(waveforms)
    torch.testing.assert_close(ours.embeddings, theirs.embeddings, atol=1e-4, rtol=1e-4)


def test_an_encoder_is_taken_out_of_a_pre_training_checkpoint(tmp_path: Path) -> None:
    fields = {"num_codevectors_per_group": 4, "codevector_dim": 8, "proj_codevector_dim": 8}
    reference = wav2vec2.Wav2Vec2ForPreTraining(models.config("wav2vec2", **fields)).eval()
    reference.save_pretrained(tmp_path / "pretraining")
    reference.wav2vec2.save_pretrained(tmp_path / "bare")
    loaded = load_model(tmp_path / "pretraining")
    assert torch.equal(states(loaded.encoder), states(slimvox.load(tmp_path / "bare")))
    assert set(loaded.head_modules) == {"quantizer", "quantizer.weight_proj", "project_hid", "project_q"}


def write_shards(tensors: Tensors, directory: Path, kind: str) -> Path:
    """Two shards with their index; returns the index."""
    stem, ending = {"safetensors": ("model", "safetensors"), "pickle": ("pytorch_model", "bin")}[kind]
    names = sorted(tensors)
    weight_map = {}
    for number, part in enumerate((names[:20], names[20:])):
        file = f"{stem}-{number}.{ending}"
        shard = {name: tensors[name] for name in part}
        if kind == "pickle":
            torch.save(shard, directory / file)
        else:
            save_file(shard, directory / file)
        weight_map |= dict.fromkeys(part, file)
    index = directory / f"{stem}.{ending}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return index


def test_a_directory_with_shards_is_saved_over(original: Path, tmp_path: Path) -> None:
    models.model("wavlm").save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    assert len(weight_files(tmp_path / "sharded")) > 1
    (tmp_path / "sharded" / "encoder.bin").write_bytes(b"an export")
    encoder = slimvox.load(original)
    encoder.save_pretrained(tmp_path / "sharded")
    assert weight_files(tmp_path / "sharded") == (tmp_path / "sharded" / "model.safetensors",)
    left = [path.name for path in (tmp_path / "sharded").iterdir()]
    assert [name for name in left if name.startswith("model") and not name.endswith(".py")] == [
        "model.safetensors"
    ]
    assert "encoder.bin" in left
    assert torch.equal(states(slimvox.load(tmp_path / "sharded")), states(encoder))


@pytest.mark.parametrize("kind", ["safetensors", "pickle"])
def test_shards_are_put_together(kind: str, original: Path, tmp_path: Path) -> None:
    shutil.copy(original / "config.json", tmp_path)
    index = write_shards(load_file(original / "model.safetensors"), tmp_path, kind)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"of no use")
    assert torch.equal(states(slimvox.load(tmp_path)), states(slimvox.load(original)))
    shard = sorted(set(json.loads(index.read_text())["weight_map"].values()))[1]
    (tmp_path / shard).unlink()
    with pytest.raises(
        slimvox.SlimvoxError, match=f"the shard {shard}, which {index.name} names, is missing"
    ):
        slimvox.load(tmp_path)


@pytest.mark.parametrize(
    "weight_map", [None, [], {}, {"a": 5}, {"a": "../elsewhere.bin"}, {"a": "/etc/passwd"}, {"a": "code.py"}]
)
def test_an_index_that_names_no_weight_files_beside_it_is_refused(
    weight_map: object, original: Path, tmp_path: Path
) -> None:
    shutil.copy(original / "config.json", tmp_path)
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(
        slimvox.SlimvoxError, match=r"index\.json: (`weight_map(\.a)?` must|.* is not the name)"
    ):
        slimvox.load(tmp_path)


def test_code_in_a_shard_is_not_run(original: Path, tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "harm",))

    shutil.copy(original / "config.json", tmp_path)
    index = write_shards(load_file(original / "model.safetensors"), tmp_path, "pickle")
    torch.save({"a": Harmful()}, tmp_path / "pytorch_model-1.bin")
    assert index.is_file()
    with pytest.raises(slimvox.SlimvoxError, match=r"pytorch_model-1\.bin cannot be loaded as plain weights"):
        slimvox.load(tmp_path)
    assert not (tmp_path / "harm").exists()


def test_a_pickle_of_something_else_is_refused(original: Path, tmp_path: Path) -> None:
    shutil.copy(original / "config.json", tmp_path)
    torch.save([torch.ones(2)], tmp_path / "pytorch_model.bin")
    with pytest.raises(slimvox.SlimvoxError, match="must hold tensors by name, but holds list"):
        slimvox.load(tmp_path)


def test_wrappers_and_unknown_tensors_in_a_directory_of_slimvox(original: Path, tmp_path: Path) -> None:
    encoder = slimvox.load(original)
    write_slimvox_directory(encoder, tmp_path, kept_indices={}, model_card="")
    tensors = load_file(tmp_path / "model.safetensors")
    save_file(renamed("_orig_mod.")(tensors), tmp_path / "model.safetensors")
    assert torch.equal(states(slimvox.load(tmp_path)), states(encoder))
    save_file({**tensors, "extra.weight": torch.ones(2)}, tmp_path / "model.safetensors")
    with pytest.raises(slimvox.SlimvoxError, match=r"unknown: extra\.weight"):
        slimvox.load(tmp_path)
