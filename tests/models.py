"""Small random models of every family and layout, made by `transformers` itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING,
    MODEL_FOR_CTC_MAPPING,
    MODEL_MAPPING,
    AutoConfig,
)

from slimvox.families import families, find_family
from slimvox.families.base import CONV_FIELDS

FAMILIES = tuple(family.model_type for family in families() if family.extractor_settings is None)
"""Those that read waveforms in `transformers` as well; for Whisper see `whisper_models`."""
LAYOUTS = ("base", "large")
CLASSES: dict[str | None, Any] = {
    None: MODEL_MAPPING,
    "ctc": MODEL_FOR_CTC_MAPPING,
    "classification": MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING,
}
"""By head, the class of `transformers` for each class of configurations."""
TINY: dict[str, Any] = {
    "num_hidden_layers": 3,
    "intermediate_size": 48,
    "conv_dim": (16, 12, 20),
    "conv_kernel": (10, 3, 2),
    "conv_stride": (5, 2, 2),
}
TINY_ANATOMY: dict[str, Any] = {
    "width": 32,
    "attention_heads": 4,
    "position_kernel": 16,
    "position_stack": 3,
    "position_groups": 4,
    "position_buckets": 32,
    "position_max_distance": 40,
}
LARGE_ANATOMY: dict[str, Any] = {"conv_norm": "layer", "pre_norm": True, "conv_bias": True}


def fields(family: str, **anatomy: Any) -> dict[str, Any]:
    """Fields of an anatomy as fields of a configuration, as far as the family has them."""
    names = find_family(family, "tests").fields
    return {name: anatomy[ours] for name, ours in names.items() if ours in anatomy}


def published(family: str) -> dict[str, Any]:
    """Changes to `config` by which it describes a model of the size that was published, but for `TINY`'s layers."""
    defaults = AutoConfig.for_model(family)
    names = (*fields(family, **TINY_ANATOMY), *CONV_FIELDS)
    return {name: getattr(defaults, name) for name in names}


def config(family: str, layout: str = "base", **changes: Any) -> Any:
    """A `transformers` configuration, tiny unless told otherwise."""
    anatomy = {**TINY_ANATOMY, **(LARGE_ANATOMY if layout == "large" else {})}
    return AutoConfig.for_model(family, **{**TINY, **fields(family, **anatomy), **changes})


def model(
    family: str, layout: str = "base", *, seed: int = 0, head: str | None = None, **changes: Any
) -> Any:
    """A random model whose norms and biases are random too, so that nothing is hidden by zeros and ones."""
    torch.manual_seed(seed)
    configuration = config(family, layout, **changes)
    made = CLASSES[head][type(configuration)](configuration).eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if parameter.dim() == 1 or "gru_rel_pos_const" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return made


def directory(path: Path, family: str, layout: str = "base", **changes: Any) -> Path:
    """The same, saved as a checkpoint directory."""
    model(family, layout, **changes).save_pretrained(path)
    return path
