"""What a mask does: it scales rows or columns of weights. There is no other definition.

The masked student runs the encoder on scaled weights; surgery scales the same weights and then slices the zeros
away. That is why the two agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call

from slimvox.anatomy import EncoderAnatomy, LayerAnatomy
from slimvox.encoder import EncoderOutput, HasEncoder


@dataclass(frozen=True, kw_only=True)
class LayerMasks:
    """Masks of one Transformer layer; each is 0 for what goes and the scale of what stays; None masks nothing."""

    attention: Tensor | None = None
    """The whole attention block, its output bias included: shape ()."""
    head: Tensor | None = None
    """Whole heads: (heads left,)."""
    qk: Tensor | None = None
    """Query and key dimensions of all heads, as packed: (sum of the heads' qk,). It scales the queries only."""
    vo: Tensor | None = None
    """Value dimensions of all heads, as packed: (sum of the heads' vo,)."""
    feed_forward: Tensor | None = None
    """The whole feed-forward block, its output bias included: shape ()."""
    intermediate: Tensor | None = None
    """Feed-forward dimensions: (intermediate,)."""


@dataclass(frozen=True, kw_only=True)
class EncoderMasks:
    """Masks of a whole encoder."""

    conv: tuple[Tensor | None, ...]
    """Output channels of each convolution, scaled where the next module reads them: (channels,)."""
    layers: tuple[LayerMasks, ...]

    @classmethod
    def none(cls, anatomy: EncoderAnatomy) -> EncoderMasks:
        """Masks that mask nothing."""
        return cls(conv=(None,) * len(anatomy.convolutions), layers=(LayerMasks(),) * len(anatomy.layers))

    def kept_channels(self) -> tuple[Tensor | None, ...] | None:
        """Which channels the norms over channels may count, see `ChannelNorm`."""
        if all(mask is None for mask in self.conv):
            return None
        return tuple(None if mask is None else (mask.detach() != 0).to(mask.dtype) for mask in self.conv)


def scale_parameters(
    parameters: Mapping[str, Tensor], masks: EncoderMasks, anatomy: EncoderAnatomy
) -> dict[str, Tensor]:
    """The parameters that the masks change, scaled; the others are not in the result.

    Args:
        parameters: the encoder's parameters by name.
        masks: what to scale by. Gradients flow to both.
        anatomy: the encoder's.
    """
    scaled: dict[str, Tensor] = {}

    def scale(name: str, factor: Tensor) -> None:
        scaled[name] = scaled.get(name, parameters[name]) * factor

    for index, channels in enumerate(masks.conv):
        if channels is None:
            continue
        if index + 1 < len(anatomy.convolutions):
            scale(f"feature_extractor.conv_layers.{index + 1}.conv.weight", channels[:, None])
        else:
            scale("feature_projection.projection.weight", channels)
    for index, (layer, mask) in enumerate(zip(anatomy.layers, masks.layers, strict=True)):
        attention, feed_forward = f"layers.{index}.attention.", f"layers.{index}.feed_forward."
        if layer.attention:
            if mask.qk is not None and layer.qk:
                scale(attention + "q_proj.weight", mask.qk[:, None])
                scale(attention + "q_proj.bias", mask.qk)
            values = value_scale(layer, mask)
            if values is not None and layer.vo:
                scale(attention + "v_proj.weight", values[:, None])
                scale(attention + "v_proj.bias", values)
            if mask.attention is not None:
                if layer.vo:
                    scale(attention + "out_proj.weight", mask.attention)
                scale(attention + "out_proj.bias", mask.attention)
        if layer.feed_forward:
            if mask.intermediate is not None and layer.intermediate:
                scale(feed_forward + "output_dense.weight", mask.intermediate)
            if mask.feed_forward is not None:
                if layer.intermediate:
                    scale(feed_forward + "output_dense.weight", mask.feed_forward)
                scale(feed_forward + "output_dense.bias", mask.feed_forward)
    return scaled


def value_scale(layer: LayerAnatomy, mask: LayerMasks) -> Tensor | None:
    """`vo` and `head` masks together, per packed value dimension."""
    if mask.head is None:
        return mask.vo
    widths = torch.tensor([head.vo for head in layer.heads], dtype=torch.long, device=mask.head.device)
    per_dimension = torch.repeat_interleave(mask.head, widths, output_size=layer.vo)
    return per_dimension if mask.vo is None else per_dimension * mask.vo


def masked_forward(
    encoder: HasEncoder, masks: EncoderMasks, waveforms: Tensor, mask: Tensor | None = None
) -> EncoderOutput:
    """Run an encoder under masks; arguments and result are those of `SpeechEncoder.forward`."""
    encoder = encoder.as_encoder()
    scaled = scale_parameters(dict(encoder.named_parameters()), masks, encoder.anatomy)
    output: EncoderOutput = functional_call(
        encoder, scaled, (waveforms, mask), {"kept_channels": masks.kept_channels()}
    )
    return output
