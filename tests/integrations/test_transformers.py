"""slimvox directories through the Auto classes of `transformers`: the same numbers, both ways, in any order."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel

import models
import slimvox
from slimvox.hf.configuration import SlimvoxConfig
from slimvox.hf.modeling import SlimvoxModel


@pytest.fixture(params=["pruned", "pruned_large"])
def directory(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(request.param)
    return path


def test_the_auto_model_computes_what_the_encoder_computes(directory: Path, batch: dict[str, Tensor]) -> None:
    model = AutoModel.from_pretrained(directory)
    assert type(model) is SlimvoxModel and not model.training
    ours = slimvox.load(directory)(batch["input_values"], batch["attention_mask"])
    theirs = model(**batch, output_hidden_states=True)
    assert torch.equal(theirs.last_hidden_state, ours.last_hidden_state)
    for a, b in zip(theirs.hidden_states, ours.hidden_states, strict=True):
        assert torch.equal(a, b)
    assert torch.equal(theirs.frame_mask, ours.frame_mask)
    assert torch.equal(model.frame_mask(batch["attention_mask"]), ours.frame_mask)
    frames = ours.frame_mask.shape[1]
    assert torch.equal(
        model._get_feature_vector_attention_mask(frames, batch["attention_mask"]), ours.frame_mask
    )


def test_outputs_have_the_shape_users_know(pruned: Path) -> None:
    model = AutoModel.from_pretrained(pruned)
    waveforms = torch.randn(2, 2000)
    plain = model(waveforms)
    assert plain.hidden_states is None and plain.frame_mask.all()
    as_tuple = model(waveforms, output_hidden_states=True, return_dict=False)
    assert torch.equal(as_tuple[0], plain.last_hidden_state)
    assert len(as_tuple[1]) == model.config.num_hidden_layers + 1
    wordy = AutoModel.from_pretrained(pruned, output_hidden_states=True)
    assert len(wordy(waveforms).hidden_states) == len(as_tuple[1])
    with pytest.raises(ValueError, match="`output_attentions` must be false"):
        model(waveforms, output_attentions=True)
    with pytest.raises(ValueError, match=r"at least .* samples"):
        model(torch.randn(1, 20))


def test_dense_checkpoints_written_by_slimvox_match_transformers(tmp_path: Path) -> None:
    from slimvox.checkpoint import write_slimvox_directory

    reference = models.model("wavlm", "large")
    reference.save_pretrained(tmp_path / "dense")
    encoder = slimvox.load(tmp_path / "dense")
    write_slimvox_directory(encoder, tmp_path / "ours", kept_indices={}, model_card="")
    model = AutoModel.from_pretrained(tmp_path / "ours")
    assert not model.config.is_heterogeneous
    waveforms = torch.randn(2, 3000)
    mask = (torch.arange(3000) < torch.tensor([[3000], [1800]])).long()
    with torch.no_grad():
        theirs = reference(waveforms, attention_mask=mask, output_hidden_states=True)
        ours = model(waveforms, attention_mask=mask, output_hidden_states=True)
    speech = ours.frame_mask
    expected_mask = reference._get_feature_vector_attention_mask(speech.shape[1], mask)
    assert torch.equal(speech, expected_mask)
    for a, b in zip(ours.hidden_states, theirs.hidden_states, strict=True):
        assert torch.allclose(a[speech], b[speech], atol=1e-4)


def test_the_configuration_speaks_the_terms_of_transformers(pruned: Path) -> None:
    config = AutoConfig.from_pretrained(pruned)
    assert (config.hidden_size, config.num_hidden_layers, config.conv_dim) == (32, 3, [16, 12, 20])
    first, second, third = config.per_layer_config
    assert (first.num_attention_heads, first.intermediate_size, first.skip) == (2, 7, [])
    assert (second.intermediate_size, second.skip) == (11, ["attention"])
    assert (third.num_attention_heads, third.skip) == (2, ["feed_forward"])
    assert config.teacher == {"name": "tiny", "licence": "mit"}
    assert config.inputs_to_logits_ratio == 20
    assert config.encoder_anatomy == slimvox.load(pruned).anatomy
    assert config.encoder_dense_anatomy == slimvox.load(pruned).dense_anatomy
    written = json.loads((pruned / "config.json").read_text())
    assert written["model_type"] == "slimvox" and written["format_version"] == 1
    again = SlimvoxConfig(**{name: value for name, value in written.items() if name != "model_type"})
    assert again.to_dict()["per_layer_config"] == config.to_dict()["per_layer_config"]


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": 64},
        {"per_layer_config": {"0": {"intermediate_size": 9}}},
        {"format_version": 2},
    ],
)
def test_a_configuration_that_contradicts_its_anatomy_is_refused(
    changes: dict[str, object], pruned: Path
) -> None:
    written = json.loads((pruned / "config.json").read_text())
    del written["model_type"]
    with pytest.raises(ValueError, match=f"`{next(iter(changes))}`.* must be"):
        SlimvoxConfig(**{**written, **changes})


def test_the_default_configuration_is_wav2vec2_base() -> None:
    config = SlimvoxConfig()
    assert (config.hidden_size, config.num_attention_heads, config.conv_dim) == (768, 12, [512] * 7)
    assert not config.is_heterogeneous


def test_the_feature_extractor_normalises_as_the_anatomy_says(pruned: Path, pruned_large: Path) -> None:
    from transformers import Wav2Vec2FeatureExtractor

    plain, normal = (AutoFeatureExtractor.from_pretrained(path) for path in (pruned, pruned_large))
    assert type(plain) is Wav2Vec2FeatureExtractor
    assert (plain.do_normalize, plain.return_attention_mask) == (False, False)
    assert (normal.do_normalize, normal.return_attention_mask) == (True, True)
    assert set(json.loads((pruned / "preprocessor_config.json").read_text())) == set(plain.to_dict())
    waves = [3 + 5 * torch.randn(3000), torch.randn(2000)]
    inputs = normal([w.numpy() for w in waves], sampling_rate=16_000, padding=True, return_tensors="pt")
    model = AutoModel.from_pretrained(pruned_large)
    raw = torch.nn.utils.rnn.pad_sequence(waves, batch_first=True)
    extracted, direct = model(**inputs), model(raw, inputs["attention_mask"])
    speech = direct.frame_mask
    assert torch.allclose(extracted.last_hidden_state[speech], direct.last_hidden_state[speech], atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(directory: Path, dtype: torch.dtype, batch: dict[str, Tensor]) -> None:
    half = AutoModel.from_pretrained(directory, dtype=dtype, device_map="cpu")
    assert {parameter.dtype for parameter in half.parameters()} == {dtype}
    full = AutoModel.from_pretrained(directory)
    with torch.no_grad():
        a, b = half(**batch).last_hidden_state, full(**batch).last_hidden_state
    speech = full.frame_mask(batch["attention_mask"])
    assert a.dtype == dtype
    error = (a[speech].float() - b[speech]).norm() / b[speech].norm()
    assert error < 0.05


def test_a_model_made_from_a_configuration_is_initialised(pruned: Path, batch: dict[str, Tensor]) -> None:
    model = AutoModel.from_config(AutoConfig.from_pretrained(pruned)).eval()
    assert torch.isfinite(model(**batch).last_hidden_state).all()
    assert torch.equal(copy.deepcopy(model)(**batch).last_hidden_state, model(**batch).last_hidden_state)


def test_gradient_checkpointing_changes_no_gradient(pruned: Path, batch: dict[str, Tensor]) -> None:
    def gradients(checkpointing: bool) -> list[Tensor]:
        model = AutoModel.from_pretrained(pruned).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
            assert model.is_gradient_checkpointing
        model(**batch).last_hidden_state[:2].square().sum().backward()
        return [p.grad for p in model.parameters() if p.grad is not None]

    for a, b in zip(gradients(False), gradients(True), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_spec_augment_masks_in_training_only(pruned: Path, batch: dict[str, Tensor]) -> None:
    plain = AutoModel.from_pretrained(pruned)
    expected = plain(**batch).last_hidden_state
    assert torch.equal(plain.train()(**batch).last_hidden_state, expected)
    fields = {
        "mask_time_prob": 0.4,
        "mask_time_length": 3,
        "mask_feature_prob": 0.2,
        "mask_feature_length": 2,
    }
    masked = AutoModel.from_pretrained(pruned, **fields)
    assert torch.equal(masked(**batch).last_hidden_state, expected)
    assert not torch.allclose(masked.train()(**batch).last_hidden_state, expected, atol=1e-2)
    masked.config.apply_spec_augment = False
    assert torch.equal(masked(**batch).last_hidden_state, expected)


def test_a_directory_of_the_first_release_loads(pruned: Path, tmp_path: Path) -> None:
    written = json.loads((pruned / "config.json").read_text())
    kept = {name: written[name] for name in ("model_type", "format_version", "anatomy", "dense_anatomy")}
    (tmp_path / "config.json").write_text(json.dumps({**kept, "architectures": ["SpeechEncoder"]}))
    (tmp_path / "model.safetensors").write_bytes((pruned / "model.safetensors").read_bytes())
    waveforms = torch.randn(1, 2000)
    expected = slimvox.load(pruned)(waveforms).last_hidden_state
    assert torch.equal(slimvox.load(tmp_path)(waveforms).last_hidden_state, expected)
    assert torch.equal(AutoModel.from_pretrained(tmp_path)(waveforms).last_hidden_state, expected)


REGISTER = "slimvox.register_auto_classes()"
ORDERS = {
    "slimvox first": f"import slimvox; from transformers import AutoModel; {REGISTER}",
    "registration first": f"import slimvox; {REGISTER}; from transformers import AutoModel",
    "transformers first": "from transformers import AutoModel; import slimvox",
    "twice": f"from transformers import AutoModel; import slimvox; {REGISTER}",
}


@pytest.mark.parametrize("order", ORDERS)
def test_auto_classes_are_registered(order: str, pruned: Path) -> None:
    code = f"{ORDERS[order]}; print(type(AutoModel.from_pretrained({str(pruned)!r})).__module__)"
    done = subprocess.run(
        [sys.executable, "-W", "error:slimvox:UserWarning", "-c", code],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "slimvox.hf.modeling"


def test_importing_slimvox_imports_neither_torch_nor_transformers_and_hooks_into_nothing() -> None:
    code = (
        "import sys; before = list(sys.meta_path); import slimvox;"
        " print({'torch', 'transformers'} & set(sys.modules), sys.meta_path == before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set() True"
