"""Small random models of every family and layout, made by `transformers` itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers.models.hubert import modeling_hubert as hubert
from transformers.models.hubert.configuration_hubert import HubertConfig
from transformers.models.wav2vec2 import modeling_wav2vec2 as wav2vec2
from transformers.models.wav2vec2.configuration_wav2vec2 import Wav2Vec2Config
from transformers.models.wavlm import modeling_wavlm as wavlm
from transformers.models.wavlm.configuration_wavlm import WavLMConfig

FAMILIES = ("wav2vec2", "hubert", "wavlm")
LAYOUTS = ("base", "large")
CLASSES: dict[str, tuple[Any, Any]] = {
    "wav2vec2": (Wav2Vec2Config, wav2vec2.Wav2Vec2Model),
    "hubert": (HubertConfig, hubert.HubertModel),
    "wavlm": (WavLMConfig, wavlm.WavLMModel),
}
HEADS: dict[str, dict[str, Any]] = {
    "ctc": {"wav2vec2": wav2vec2.Wav2Vec2ForCTC, "hubert": hubert.HubertForCTC, "wavlm": wavlm.WavLMForCTC},
    "classification": {
        "wav2vec2": wav2vec2.Wav2Vec2ForSequenceClassification,
        "hubert": hubert.HubertForSequenceClassification,
        "wavlm": wavlm.WavLMForSequenceClassification,
    },
}
TINY: dict[str, Any] = {
    "hidden_size": 32,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "intermediate_size": 48,
    "conv_dim": (16, 12, 20),
    "conv_kernel": (10, 3, 2),
    "conv_stride": (5, 2, 2),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
LARGE: dict[str, Any] = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}


def config(family: str, layout: str = "base", **changes: Any) -> Any:
    """A `transformers` configuration, tiny unless told otherwise."""
    fields = {**TINY, **(LARGE if layout == "large" else {}), **changes}
    if family == "wavlm":
        fields.setdefault("num_buckets", 32)
        fields.setdefault("max_bucket_distance", 40)
    return CLASSES[family][0](**fields)


def model(
    family: str, layout: str = "base", *, seed: int = 0, head: str | None = None, **changes: Any
) -> Any:
    """A random model whose norms and biases are random too, so that nothing is hidden by zeros and ones."""
    torch.manual_seed(seed)
    cls = HEADS[head][family] if head else CLASSES[family][1]
    made = cls(config(family, layout, **changes)).eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if parameter.dim() == 1 or "gru_rel_pos_const" in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return made


def directory(path: Path, family: str, layout: str = "base", **changes: Any) -> Path:
    """The same, saved as a checkpoint directory."""
    model(family, layout, **changes).save_pretrained(path)
    return path
