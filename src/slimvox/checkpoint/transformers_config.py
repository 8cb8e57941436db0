"""Configuration of the dense model in `transformers`, from an anatomy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from slimvox.structures.anatomy import EncoderAnatomy
from slimvox.util.errors import SlimvoxError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


def transformers_config(anatomy: EncoderAnatomy) -> PreTrainedConfig:
    """The configuration of the model in `transformers` that has this anatomy: the reverse of `anatomy_from_config`.

    Raises:
        SlimvoxError: if the encoder is pruned: `transformers` knows no layers that differ.
    """
    from transformers import AutoConfig

    layer = anatomy.layers[0] if anatomy.layers else None
    widths = {(head.qk, head.vo) for head in layer.heads} if layer else set()
    dense = layer is not None and len(layer.heads) == anatomy.attention_heads
    if not dense or widths != {(anatomy.head_width,) * 2} or len(set(anatomy.layers)) > 1:
        raise SlimvoxError("a pruned encoder cannot be represented by `transformers`' own classes")
    assert layer is not None
    fields: dict[str, Any] = {
        "hidden_size": anatomy.width,
        "num_hidden_layers": len(anatomy.layers),
        "num_attention_heads": anatomy.attention_heads,
        "intermediate_size": layer.intermediate,
        "conv_dim": [convolution.channels for convolution in anatomy.convolutions],
        "conv_kernel": [convolution.kernel for convolution in anatomy.convolutions],
        "conv_stride": [convolution.stride for convolution in anatomy.convolutions],
        "conv_bias": anatomy.conv_bias,
        "feat_extract_norm": anatomy.conv_norm,
        "num_conv_pos_embeddings": anatomy.position_kernel,
        "num_conv_pos_embedding_groups": anatomy.position_groups,
        "do_stable_layer_norm": anatomy.pre_norm,
        "layer_norm_eps": anatomy.layer_norm_eps,
    }
    if anatomy.family == "hubert":
        fields["feat_proj_layer_norm"] = anatomy.projection_norm
    if anatomy.family == "wavlm":
        fields |= {
            "num_buckets": anatomy.position_buckets,
            "max_bucket_distance": anatomy.position_max_distance,
        }
    return AutoConfig.for_model(anatomy.family, **fields)
