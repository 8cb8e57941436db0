"""Task heads: what `transformers` computes, what is new in them, fine-tuning, and heads carried over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForAudioClassification,
    AutoModelForAudioFrameClassification,
    AutoModelForAudioXVector,
    AutoModelForCTC,
    AutoModelForSequenceClassification,
    Trainer,
    TrainingArguments,
)
from transformers.models.wavlm import modeling_wavlm as wavlm

import models
import slimvox
from slimvox.checkpoint import write_slimvox_directory

TDNN = {"tdnn_dim": [8, 6], "tdnn_kernel": [3, 1], "tdnn_dilation": [2, 1], "xvector_output_dim": 5}
WEIGHTED: dict[str, Any] = {"use_weighted_layer_sum": True, "num_labels": 4, "classifier_proj_size": 9}
CASES: dict[str, tuple[Any, Any, dict[str, Any], Any]] = {
    "ctc": (AutoModelForCTC, wavlm.WavLMForCTC, {"vocab_size": 7}, torch.tensor([[1, 2, 3], [4, 5, -100]])),
    "sequence": (
        AutoModelForSequenceClassification,
        wavlm.WavLMForSequenceClassification,
        {"num_labels": 4, "classifier_proj_size": 9},
        torch.tensor([1, 3]),
    ),
    "audio": (
        AutoModelForAudioClassification,
        wavlm.WavLMForSequenceClassification,
        WEIGHTED,
        torch.tensor([1, 3]),
    ),
    "frame": (
        AutoModelForAudioFrameClassification,
        wavlm.WavLMForAudioFrameClassification,
        {"num_labels": 3, "use_weighted_layer_sum": True},
        None,
    ),
    "xvector": (
        AutoModelForAudioXVector,
        wavlm.WavLMForXVector,
        {"num_labels": 3, "use_weighted_layer_sum": True, **TDNN},
        torch.tensor([0, 2]),
    ),
}


def inputs(case: str, *, masked: bool) -> dict[str, Tensor]:
    labels = CASES[case][3]
    values: dict[str, Tensor] = {"input_values": torch.randn(2, 3000)}
    if masked:
        values["attention_mask"] = (torch.arange(3000) < torch.tensor([[3000], [1800]])).long()
    if labels is None:
        labels = torch.nn.functional.one_hot(torch.randint(3, (2, 149)), 3)
    return {**values, "labels": labels}


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that slimvox wrote of an encoder that is not pruned: the same as the original computes."""
    path = tmp_path_factory.mktemp("dense")
    encoder = slimvox.load(models.directory(path / "original", "wavlm", "large"))
    write_slimvox_directory(encoder, path / "ours", kept_indices={}, model_card="")
    return path / "ours"


def fine_tuned(case: str, path: Path, layout: str = "large", **changes: Any) -> Any:
    """A random dense model of `transformers` with a head, on the encoder of `models.model(seed=0)`."""
    reference_class, fields = CASES[case][1:3]
    torch.manual_seed(5)
    model = reference_class(models.config("wavlm", layout, **{**fields, **changes})).eval()
    if not changes:
        model.wavlm.load_state_dict(models.model("wavlm", layout).state_dict())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.startswith("wavlm."):
                parameter.add_(0.3 * torch.randn_like(parameter))
    model.save_pretrained(path)
    return model


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_a_carried_head_computes_what_it_did_on_the_original(
    case: str, masked: bool, dense: Path, tmp_path: Path
) -> None:
    reference = fine_tuned(case, tmp_path / "tuned")
    model = slimvox.carry_head(tmp_path / "tuned", dense)
    batch = inputs(case, masked=masked)
    with torch.no_grad():
        ours, theirs = model(**batch), reference(**batch)
    speech = model.frame_mask(batch.get("attention_mask", torch.ones(2, 3000)))
    a, b = ours.logits, theirs.logits
    if a.shape[:2] == speech.shape:
        a, b = a[speech], b[speech]
    assert torch.allclose(a, b, atol=1e-4)
    if not (masked and case == "frame"):  # the loss of padding frames, which are of no meaning, counts there
        assert torch.allclose(ours.loss, theirs.loss, rtol=1e-3)


@pytest.mark.parametrize("case", CASES)
def test_only_the_head_is_new_on_a_pruned_encoder(case: str, pruned: Path, tmp_path: Path) -> None:
    auto_class, _, fields, _ = CASES[case]
    model, info = auto_class.from_pretrained(pruned, **fields, output_loading_info=True)
    head = {name for name, _ in model.named_parameters() if not name.startswith("slimvox.")}
    assert info["missing_keys"] == head
    assert not info["unexpected_keys"] and not info["mismatched_keys"]
    if fields.get("use_weighted_layer_sum"):
        assert torch.allclose(model.layer_weights, torch.full((4,), 0.25))
    batch = inputs(case, masked=True)
    output = model(**batch, output_hidden_states=True)
    assert torch.isfinite(output.loss) and len(output.hidden_states) == 4
    assert model(batch["input_values"]).hidden_states is None
    output.loss.backward()
    assert all(parameter.grad is not None for name, parameter in model.named_parameters() if name in head)
    model.eval().save_pretrained(tmp_path)
    again = auto_class.from_pretrained(tmp_path)
    assert torch.equal(again(**batch).logits, model(**batch).logits)


def test_freezing(pruned: Path) -> None:
    model = AutoModelForCTC.from_pretrained(pruned)
    model.freeze_feature_encoder()
    learning = {
        name.split(".")[1] for name, p in model.slimvox.named_parameters(prefix="x") if p.requires_grad
    }
    assert "feature_extractor" not in learning and "layers" in learning
    model.freeze_base_model()
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {
        "lm_head.weight",
        "lm_head.bias",
    }


def test_labels_beyond_the_vocabulary_are_refused(pruned: Path) -> None:
    model = AutoModelForCTC.from_pretrained(pruned, vocab_size=5)
    with pytest.raises(ValueError, match="below `vocab_size`, 5, but one is 5"):
        model(torch.randn(1, 2000), labels=torch.tensor([[5]]))


def tones(count: int) -> list[dict[str, Any]]:
    """Clips of two or three tones, and which they are."""
    generator = torch.Generator().manual_seed(1)
    clips = []
    for _ in range(count):
        labels = torch.randint(1, 4, (2,), generator=generator)
        time = torch.arange(1200) / 16_000
        pitches = torch.tensor([0.0, 300.0, 1200.0, 4000.0])[labels]
        wave = torch.cat([torch.sin(2 * torch.pi * pitch * time) for pitch in pitches])
        clips.append({"input_values": wave, "labels": labels})
    return clips


def test_trainer_fine_tunes_a_pruned_encoder(pruned: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    fields = {"vocab_size": 4, "pad_token_id": 0, "ctc_loss_reduction": "mean", "final_dropout": 0.0}
    model = AutoModelForCTC.from_pretrained(pruned, **fields)
    model.freeze_feature_encoder()
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=40,
        per_device_train_batch_size=8,
        learning_rate=5e-3,
        logging_steps=10,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        gradient_checkpointing=True,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=tones(32), eval_dataset=tones(32))
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    after = trainer.evaluate()["eval_loss"]
    assert after < 0.5 * before
    trainer.save_model(str(tmp_path / "tuned"))
    tuned = AutoModelForCTC.from_pretrained(tmp_path / "tuned")
    clip = tones(1)[0]["input_values"][None]
    assert torch.equal(tuned(clip).logits, model.eval()(clip).logits)
    assert (tmp_path / "tuned" / "modeling_slimvox.py").is_file()


@pytest.mark.parametrize("case", ["ctc", "audio"])
def test_a_head_is_carried_over_onto_a_pruned_encoder(case: str, pruned: Path, tmp_path: Path) -> None:
    reference = fine_tuned(case, tmp_path / "tuned", "base")
    model = slimvox.carry_head(str(tmp_path / "tuned"), str(pruned))
    theirs = dict(reference.named_parameters())
    for name, parameter in model.named_parameters():
        if not name.startswith("slimvox."):
            assert torch.equal(parameter, theirs[name])
    assert model.config.num_labels == reference.config.num_labels
    encoder = slimvox.load(pruned)
    waveforms = torch.randn(1, 2000)
    states = model.slimvox(waveforms, output_hidden_states=True).hidden_states
    for a, b in zip(states, encoder(waveforms).hidden_states, strict=True):
        assert torch.equal(a, b)
    model.save_pretrained(tmp_path / "small")
    again = CASES[case][0].from_pretrained(tmp_path / "small")
    assert torch.equal(again(waveforms).logits, model(waveforms).logits)


def test_heads_that_cannot_be_carried_over(pruned: Path, tmp_path: Path) -> None:
    fine_tuned("ctc", tmp_path / "wide", hidden_size=48)
    with pytest.raises(slimvox.SlimvoxError, match=r"width 48, but those of .* are 32 wide"):
        slimvox.carry_head(tmp_path / "wide", pruned)
    fine_tuned("audio", tmp_path / "deep", num_hidden_layers=4)
    with pytest.raises(slimvox.SlimvoxError, match=r"layer_weights must be \(4,\), but is \(5,\) instead"):
        slimvox.carry_head(tmp_path / "deep", pruned)
    models.directory(tmp_path / "bare", "hubert")
    with pytest.raises(slimvox.SlimvoxError, match="there is no task head in it"):
        slimvox.carry_head(tmp_path / "bare", pruned)
    with pytest.raises(slimvox.SlimvoxError, match="give the pruned encoder second"):
        slimvox.carry_head(tmp_path / "deep", tmp_path / "bare")
    with pytest.raises(slimvox.SlimvoxError, match=r"must be one of .*hubert, .*wavlm"):
        slimvox.carry_head(pruned, pruned)


def test_pruning_leaves_the_teachers_head_aside(tmp_path: Path) -> None:
    from slimvox.checkpoint import load_model

    fine_tuned("ctc", tmp_path)
    assert load_model(tmp_path).head_modules == ("lm_head",)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["WavLMForCTC"]
