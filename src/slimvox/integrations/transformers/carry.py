"""Carries the head of a fine-tuned dense model over onto the pruned encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slimvox.anatomy import FAMILIES
from slimvox.checkpoint import find_model, load_model
from slimvox.checkpoint.directory import is_slimvox_directory
from slimvox.checkpoint.transformers_reader import read_json, read_tensors
from slimvox.errors import SlimvoxError
from slimvox.integrations.transformers.configuration import SlimvoxConfig
from slimvox.integrations.transformers.heads import (
    SlimvoxForAudioFrameClassification,
    SlimvoxForCTC,
    SlimvoxForSequenceClassification,
    SlimvoxForXVector,
    SlimvoxWithHead,
)

HEADS: dict[str, type[SlimvoxWithHead]] = {
    "ForCTC": SlimvoxForCTC,
    "ForSequenceClassification": SlimvoxForSequenceClassification,
    "ForAudioFrameClassification": SlimvoxForAudioFrameClassification,
    "ForXVector": SlimvoxForXVector,
}
"""How the name of a fine-tuned model's class ends, and our class with the same head."""
HEAD_FIELDS = (
    "vocab_size",
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
    "ctc_loss_reduction",
    "ctc_zero_infinity",
    "final_dropout",
    "use_weighted_layer_sum",
    "classifier_proj_size",
    "tdnn_dim",
    "tdnn_kernel",
    "tdnn_dilation",
    "xvector_output_dim",
    "id2label",
    "label2id",
    "problem_type",
)
"""What of a configuration belongs to the head."""


def carry_head(finetuned: str | Path, pruned: str | Path, *, revision: str | None = None) -> SlimvoxWithHead:
    """Put the head of a fine-tuned dense model, weights of a layer sum included, on a pruned encoder.

    The hidden states of the pruned encoder have the width of the dense one's and stand for the same, so that a head
    made for the one is a good start for the other. It is a start: fine-tune it.

    Args:
        finetuned: a `transformers` directory or hub id of a wav2vec 2.0, HuBERT or WavLM model with a CTC, sequence
            classification, audio frame classification or x-vector head.
        pruned: a directory that slimvox wrote, or its id on the hub.
        revision: of `finetuned` on the hub.

    Returns:
        The model, in evaluation mode, float32, on the CPU. Its tokenizer, if it has one, stays that of `finetuned`.

    Raises:
        SlimvoxError: if either is not what it should be, or the head does not fit the encoder.
    """
    source, target = find_model(finetuned, revision=revision), find_model(pruned)
    if not is_slimvox_directory(target):
        raise SlimvoxError(f"{target} must be a directory that slimvox wrote: give the pruned encoder second")
    head_class, theirs = _head_of(source)
    encoder = load_model(target).encoder
    fields = {name: getattr(theirs, name) for name in HEAD_FIELDS if hasattr(theirs, name)}
    config = SlimvoxConfig.from_pretrained(target, **fields)
    if theirs.hidden_size != config.hidden_size:
        raise SlimvoxError(
            f"{source}: the head reads hidden states of width {theirs.hidden_size}, but those of {target} are"
            f" {config.hidden_size} wide; the encoder must have been pruned from a model of the same width"
        )
    model = head_class(config)
    model.slimvox.load_state_dict(encoder.state_dict())
    _load_head(model, _head_tensors(source, theirs.model_type), source)
    model.eval()
    return model


def _head_of(source: Path) -> tuple[type[SlimvoxWithHead], Any]:
    """Our class for the head of a fine-tuned checkpoint, and its configuration with all defaults filled in."""
    from transformers import AutoConfig

    data = read_json(source / "config.json")
    if data.get("model_type") not in FAMILIES:
        raise SlimvoxError(
            f"{source}: `model_type` must be one of {', '.join(FAMILIES)}, but is {data.get('model_type')!r} instead"
        )
    name = str((data.get("architectures") or ["nothing"])[0])
    for ending, head_class in HEADS.items():
        if name.endswith(ending):
            return head_class, AutoConfig.from_pretrained(source)
    raise SlimvoxError(
        f"{source}: the architecture must end in one of {', '.join(HEADS)}, but is {name} instead; there is no head"
        " to carry over"
    )


def _head_tensors(source: Path, family: str) -> dict[str, Tensor]:
    tensors = read_tensors(source)
    return {name: tensor.float() for name, tensor in tensors.items() if not name.startswith(f"{family}.")}


@torch.no_grad()
def _load_head(model: SlimvoxWithHead, tensors: dict[str, Tensor], source: Path) -> None:
    prefix = f"{model.base_model_prefix}."
    wanted = {name: value for name, value in model.state_dict().items() if not name.startswith(prefix)}
    problems = [f"missing: {name}" for name in wanted if name not in tensors]
    problems += [f"unknown: {name}" for name in tensors if name not in wanted]
    problems += [
        f"{name} must be {tuple(wanted[name].shape)}, but is {tuple(tensor.shape)} instead"
        for name, tensor in tensors.items()
        if name in wanted and wanted[name].shape != tensor.shape
    ]
    if problems:
        raise SlimvoxError(f"{source}: the head does not fit the pruned encoder: {'; '.join(problems[:5])}")
    for name, value in wanted.items():
        value.copy_(tensors[name])
