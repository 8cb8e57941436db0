"""Task heads: copying the head of a fine-tuned dense model to a pruned encoder, and loading a model with its head."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import initialization as init

from slimvox.checkpoint import find_model, load_model
from slimvox.checkpoint.directory import is_slimvox_directory, split_slimvox
from slimvox.checkpoint.hub import HubAccess
from slimvox.checkpoint.json_fields import read_json
from slimvox.checkpoint.tensors import as_float32, load_exactly, read_tensors
from slimvox.checkpoint.transformers_reader import split_transformers
from slimvox.encoder import SpeechEncoder
from slimvox.families import find_family
from slimvox.hf.configuration import SlimvoxConfig
from slimvox.hf.directory_format import head_name
from slimvox.hf.heads import (
    SlimvoxForAudioFrameClassification,
    SlimvoxForCTC,
    SlimvoxForSequenceClassification,
    SlimvoxForXVector,
    SlimvoxWithHead,
)
from slimvox.util.errors import SlimvoxError

HEADS: dict[str, type[SlimvoxWithHead]] = {
    "ForCTC": SlimvoxForCTC,
    "ForSequenceClassification": SlimvoxForSequenceClassification,
    "ForAudioFrameClassification": SlimvoxForAudioFrameClassification,
    "ForXVector": SlimvoxForXVector,
}
"""Our class for each head that a family may have (`slimvox.families.base.HEAD_NAMES`)."""
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
"""Fields of a configuration that belong to the head."""


def carry_head(
    finetuned: str | Path,
    pruned: str | Path,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
) -> SlimvoxWithHead:
    """Put the head of a fine-tuned dense model, including weights of a layer sum, on a pruned encoder. The hidden
    states of the pruned encoder have the same width and meaning as the dense one's, so that a head made for one is a
    good start for the other. It is only a start: fine-tune it.

    Args:
        finetuned: a `transformers` directory or hub id of a model of one of `slimvox.families` with a CTC, sequence
            classification, audio frame classification or x-vector head.
        pruned: a directory that slimvox wrote, or its id on the hub.
        revision: branch, tag or commit of `finetuned` on the hub.
        token: access token for the hub; by default the one that `hf auth login` stored.

    Returns:
        The model, in evaluation mode, float32, on the CPU. Its tokenizer, if it has one, stays that of `finetuned`.

    Raises:
        SlimvoxError: if either is not such a model, or the head does not fit the encoder.
    """
    source = find_model(finetuned, access=HubAccess(revision=revision, token=token))
    target = find_model(pruned, access=HubAccess(token=token))
    if not is_slimvox_directory(target):
        raise SlimvoxError(f"{target} must be a directory that slimvox wrote: give the pruned encoder second")
    name, theirs = _head_of(source)
    encoder = load_model(target).encoder
    config = SlimvoxConfig.from_pretrained(target, **_head_fields(theirs))
    if theirs.hidden_size != config.hidden_size:
        raise SlimvoxError(
            f"{source}: the head reads hidden states of width {theirs.hidden_size}, but those of {target} are"
            f" {config.hidden_size} wide; the encoder must have been pruned from a model of the same width"
        )
    return _put_together(name, config, encoder, _head_tensors(source, theirs.model_type), source)


def load_with_head(
    model: str | Path, *, revision: str | None = None, token: str | bool | None = None
) -> SlimvoxWithHead:
    """Load a model with its own task head.

    Args:
        model: a directory or hub id of a pruned encoder with a head (saved from one of our Auto classes), or of a
            fine-tuned dense model of `transformers`.
        revision: branch, tag or commit on the hub.
        token: access token for the hub; by default the one that `hf auth login` stored.

    Returns:
        The model, in evaluation mode, float32, on the CPU.

    Raises:
        SlimvoxError: if there is no head that slimvox knows, or the weights do not fit the configuration.
    """
    source = find_model(model, access=HubAccess(revision=revision, token=token))
    if is_slimvox_directory(source):
        name = head_name(read_json(source / "config.json"))
        if name is None:
            raise SlimvoxError(
                f"{source} holds an encoder without a task head: leave the head out, or put one on it first"
                " (AutoModelForCTC and so on, or slimvox.carry_head, then save_pretrained)"
            )
        encoder = load_model(source).encoder
        head = as_float32(split_slimvox(read_tensors(source), source).head, source)
        return _put_together(name, SlimvoxConfig.from_pretrained(source), encoder, head, source)
    name, theirs = _head_of(source)
    encoder = load_model(source).encoder
    config = SlimvoxConfig(anatomy=encoder.anatomy.to_dict(), **_head_fields(theirs))
    return _put_together(name, config, encoder, _head_tensors(source, theirs.model_type), source)


def _head_of(source: Path) -> tuple[str, Any]:
    """Head of a fine-tuned checkpoint, and its configuration with all defaults filled in."""
    from transformers import AutoConfig

    data = read_json(source / "config.json")
    family = find_family(data.get("model_type"), source)
    name = head_name(data)
    if name not in family.heads:
        architecture = (data.get("architectures") or ["nothing"])[0]
        raise SlimvoxError(
            f"{source}: the architecture must end in one of {', '.join(family.heads)}, but is {architecture} instead;"
            " there is no task head in it"
        )
    return name, AutoConfig.from_pretrained(source)


def _head_fields(theirs: Any) -> dict[str, Any]:
    return {name: getattr(theirs, name) for name in HEAD_FIELDS if hasattr(theirs, name)}


def _head_tensors(source: Path, model_type: str) -> dict[str, Tensor]:
    family = find_family(model_type, source)
    return as_float32(split_transformers(read_tensors(source), family, source).head, source)


def _put_together(
    name: str, config: SlimvoxConfig, encoder: SpeechEncoder, head: Mapping[str, Tensor], source: Path
) -> SlimvoxWithHead:
    """A model from an encoder and all the tensors of a head."""
    with init.no_init_weights():
        model = HEADS[name](config)
    prefix = f"{model.base_model_prefix}."
    weights = {prefix + key: tensor for key, tensor in encoder.state_dict().items()}
    load_exactly(model, {**weights, **head}, f"{source}, with its head")
    if encoder.origin is not None and is_slimvox_directory(encoder.origin):
        model.set_origin(encoder.origin)
    model.eval()
    return model
