"""Checkpoints in: every form that is published, and every way to be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import models
import slimvox
from slimvox.checkpoint import load_model, write_slimvox_directory
from slimvox.checkpoint.empty import empty_encoder
from slimvox.checkpoint.transformers_reader import _fold_weight_norm
from slimvox.encoder import SpeechEncoder


def states(encoder: Any) -> tuple[torch.Tensor, ...]:
    with torch.no_grad():
        return encoder(torch.randn(1, 3000, generator=torch.Generator().manual_seed(0))).hidden_states


def same(a: Any, b: Any) -> bool:
    return all(torch.allclose(x, y, atol=1e-6) for x, y in zip(states(a), states(b), strict=True))


@pytest.mark.parametrize("head", ["ctc", "classification"])
@pytest.mark.parametrize("family", models.FAMILIES)
def test_the_encoder_is_taken_out_of_a_fine_tuned_model(family: str, head: str, tmp_path: Path) -> None:
    reference = models.model(family, head=head)
    reference.save_pretrained(tmp_path / "tuned")
    reference.base_model.save_pretrained(tmp_path / "bare")
    tuned = load_model(tmp_path / "tuned")
    assert same(tuned.encoder, slimvox.load(tmp_path / "bare"))
    assert set(tuned.head_modules) == ({"lm_head"} if head == "ctc" else {"projector", "classifier"})


def test_weights_only_pickles_and_shards_load_too(tmp_path: Path) -> None:
    whole = models.directory(tmp_path / "whole", "wavlm")
    tensors = load_file(whole / "model.safetensors")
    pickled, sharded = tmp_path / "pickled", tmp_path / "sharded"
    for directory in (pickled, sharded):
        directory.mkdir()
        (directory / "config.json").write_bytes((whole / "config.json").read_bytes())
    torch.save(tensors, pickled / "pytorch_model.bin")
    names = sorted(tensors)
    shards = {"a.safetensors": names[:20], "b.safetensors": names[20:]}
    for file, part in shards.items():
        save_file({name: tensors[name] for name in part}, sharded / file)
    weight_map = {name: file for file, part in shards.items() for name in part}
    (sharded / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert same(slimvox.load(whole), slimvox.load(pickled))
    assert same(slimvox.load(whole), slimvox.load(sharded))


def test_the_folded_weight_norm_is_torchs_whatever_the_number_of_threads() -> None:
    magnitude, direction = torch.rand(1, 1, 128), torch.randn(192, 12, 128)
    folded = []
    known = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            tensors = {
                "encoder.pos_conv_embed.conv.weight_g": magnitude,
                "encoder.pos_conv_embed.conv.weight_v": direction,
            }
            _fold_weight_norm(tensors)
            folded.append(tensors.pop("encoder.pos_conv_embed.conv.weight"))
            assert not tensors
    finally:
        torch.set_num_threads(known)
    torch.testing.assert_close(folded[0], torch._weight_norm(direction, magnitude, 2))
    assert torch.equal(folded[0], folded[1]) and torch.equal(folded[0], folded[2])


def test_old_names_of_the_weight_norm_load(tmp_path: Path) -> None:
    new = models.directory(tmp_path / "new", "hubert")
    old = tmp_path / "old"
    old.mkdir()
    (old / "config.json").write_bytes((new / "config.json").read_bytes())
    names = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
    renamed = {}
    for name, tensor in load_file(new / "model.safetensors").items():
        for there, here in names.items():
            name = name.replace(there, here)
        renamed[name] = tensor
    save_file(renamed, old / "model.safetensors")
    assert same(slimvox.load(new), slimvox.load(old))


def test_waveforms_are_normalised_where_the_feature_extractor_would(tmp_path: Path) -> None:
    from transformers.models.wav2vec2.feature_extraction_wav2vec2 import Wav2Vec2FeatureExtractor

    directory = models.directory(tmp_path, "wav2vec2", "large")
    extractor = Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=True)
    extractor.save_pretrained(directory)
    encoder = slimvox.load(directory)
    assert encoder.anatomy.normalize_waveform
    waves = [torch.randn(3000) * 3 + 1, torch.randn(2000) * 0.1]
    prepared = extractor([w.numpy() for w in waves], sampling_rate=16_000, padding=True, return_tensors="pt")
    raw = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)
    mask = prepared["attention_mask"]
    theirs = encoder(prepared["input_values"], mask)
    ours = encoder(raw, mask)
    assert torch.allclose(
        ours.last_hidden_state[ours.frame_mask], theirs.last_hidden_state[ours.frame_mask], atol=1e-4
    )


def test_padding_changes_nothing_in_layer_norm_models(tmp_path: Path) -> None:
    encoder = slimvox.load(models.directory(tmp_path, "wavlm", "large"))
    wave = torch.randn(1, 2000)
    padded = torch.nn.functional.pad(wave, (0, 1500))
    mask = torch.arange(3500)[None] < 2000
    alone, batched = encoder(wave), encoder(padded, mask)
    assert int(batched.frame_mask.sum()) == alone.frame_mask.shape[1]
    for a, b in zip(alone.hidden_states, batched.hidden_states, strict=True):
        assert torch.allclose(a[0], b[0][batched.frame_mask[0]], atol=1e-5)


def test_a_row_of_nothing_but_padding_gives_no_nan(tmp_path: Path) -> None:
    encoder = slimvox.load(models.directory(tmp_path, "wavlm"))
    output = encoder(torch.randn(2, 2000), torch.tensor([[True], [False]]).expand(2, 2000))
    assert torch.isfinite(output.last_hidden_state).all()
    assert not output.frame_mask[1].any()


@pytest.mark.parametrize("written_by", ["transformers", "slimvox"])
@pytest.mark.parametrize(("family", "layout"), [("wavlm", "base"), ("hubert", "large")])
def test_loading_leaves_nothing_uninitialised(
    written_by: str, family: str, layout: str, tmp_path: Path
) -> None:
    directory = models.directory(tmp_path / "original", family, layout)
    expected = slimvox.load(directory)
    if written_by == "slimvox":
        directory = tmp_path / "ours"
        write_slimvox_directory(expected, directory, kept_indices={}, model_card="")
    torch.use_deterministic_algorithms(True)  # fresh memory is filled with NaN
    try:
        assert empty_encoder(expected.anatomy).layers[0].feed_forward.output_dense.weight.isnan().all()
        encoder = slimvox.load(directory)
    finally:
        torch.use_deterministic_algorithms(False)
    built = SpeechEncoder(expected.anatomy).eval()  # buffers and flags of a plain one
    for (name, ours), (_, plain) in zip(encoder.named_parameters(), built.named_parameters(), strict=True):
        assert torch.equal(ours, expected.get_parameter(name))
        assert (ours.dtype, ours.requires_grad, ours.device) == (plain.dtype, True, plain.device)
    for (name, ours), (_, plain) in zip(encoder.named_buffers(), built.named_buffers(), strict=True):
        assert torch.equal(ours, plain), name
    assert same(encoder, expected)


def break_config(directory: Path, **changes: Any) -> None:
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "bert"}, "must be one of .*hubert, .*wavlm.*, but is 'bert'"),
        ({"hidden_act": "relu"}, "not supported yet: `hidden_act` is 'relu'"),
        ({"add_adapter": True, "adapter_attn_dim": 16}, "`add_adapter` is True, `adapter_attn_dim` is 16"),
        ({"num_hidden_layers": 4}, "missing: layers.3"),
        ({"num_hidden_layers": 2}, "unknown: layers.2"),
        ({"intermediate_size": 50}, r"must be \(50, 32\), but is \(48, 32\) instead"),
        ({"num_attention_heads": 5}, "does not describe a wavlm encoder"),
    ],
)
def test_a_configuration_that_does_not_fit_is_explained(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    models.directory(tmp_path, "wavlm")
    break_config(tmp_path, **changes)
    with pytest.raises(slimvox.SlimvoxError, match=message):
        slimvox.load(tmp_path)


def test_damaged_and_missing_files_are_named(tmp_path: Path) -> None:
    models.directory(tmp_path, "hubert")
    weights = tmp_path / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(slimvox.SlimvoxError, match="damaged"):
        slimvox.load(tmp_path)
    weights.unlink()
    with pytest.raises(slimvox.SlimvoxError, match="there are no weights"):
        slimvox.load(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"not a pickle")
    with pytest.raises(slimvox.SlimvoxError, match="plain weights"):
        slimvox.load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(slimvox.SlimvoxError, match="is not valid JSON"):
        slimvox.load(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(slimvox.SlimvoxError, match=r"no config\.json"):
        slimvox.load(tmp_path)


def test_a_pickle_with_code_in_it_is_not_run(tmp_path: Path) -> None:
    models.directory(tmp_path, "hubert")
    (tmp_path / "model.safetensors").unlink()

    class Harmful:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "harm",))

    torch.save({"a": Harmful()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(slimvox.SlimvoxError, match="plain weights"):
        slimvox.load(tmp_path)
    assert not (tmp_path / "harm").exists()


def test_names_that_lead_nowhere(tmp_path: Path) -> None:
    with pytest.raises(slimvox.SlimvoxError, match="there is no directory"):
        slimvox.load(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(slimvox.SlimvoxError, match="is a file"):
        slimvox.load(tmp_path / "file")
    with pytest.raises(slimvox.SlimvoxError, match=r"hub cannot be reached|nor such a model"):
        slimvox.load("nobody/no-such-model")


def test_a_slimvox_directory_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "slimvox", "format_version": 99}))
    with pytest.raises(slimvox.SlimvoxError, match="newer slimvox"):
        slimvox.load(tmp_path)


@pytest.mark.parametrize(
    ("shape", "message"), [((3000,), r"must be \(batch, samples\)"), ((1, 20), r"at least .* samples")]
)
def test_waveforms_of_the_wrong_shape(shape: tuple[int, ...], message: str, tmp_path: Path) -> None:
    encoder = slimvox.load(models.directory(tmp_path, "hubert"))
    with pytest.raises(ValueError, match=message):
        encoder(torch.randn(shape))
