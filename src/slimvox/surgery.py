"""Surgery: fold the masks into the weights, then slice the zeros away.

The law: for any masks, the sliced encoder computes what the masked one does, and holds exactly the parameters that
its anatomy counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from slimvox.anatomy import EncoderAnatomy, LayerAnatomy
from slimvox.encoder import HasEncoder, SpeechEncoder
from slimvox.kept_indices import Indices, KeptHead, KeptIndices, KeptLayer
from slimvox.masks import EncoderMasks, LayerMasks, scale_parameters


@dataclass(frozen=True, kw_only=True)
class SlicedEncoder:
    """The result of surgery."""

    encoder: SpeechEncoder
    """The smaller encoder."""
    kept: KeptIndices
    """What it kept, in the numbering of the encoder it was cut from."""


def survivors(anatomy: EncoderAnatomy, masks: EncoderMasks) -> KeptIndices:
    """What masks leave of an encoder: everything that is not zero and still reaches the output.

    A head goes with its last value dimension, everything in a block goes with the block. A block whose inner
    structures are all gone stays, because it still adds its output bias.

    Raises:
        ValueError: if a convolution would keep no channel.
    """
    conv = tuple(
        tuple(range(convolution.channels)) if mask is None else _nonzero(mask)
        for convolution, mask in zip(anatomy.convolutions, masks.conv, strict=True)
    )
    for index, kept in enumerate(conv):
        if not kept:
            raise ValueError(f"convolution {index} must keep at least one channel")
    layers = tuple(
        _layer_survivors(layer, mask) for layer, mask in zip(anatomy.layers, masks.layers, strict=True)
    )
    return KeptIndices(conv=conv, layers=layers)


@torch.no_grad()
def slice_encoder(encoder: HasEncoder, masks: EncoderMasks) -> SlicedEncoder:
    """Cut an encoder down to what the masks leave of it.

    Args:
        encoder: left as it is.
        masks: on the encoder's device; surviving values are folded into the weights.

    Raises:
        ValueError: if a convolution would keep no channel.
    """
    encoder = encoder.as_encoder()
    kept = survivors(encoder.anatomy, masks)
    parameters: dict[str, Tensor] = dict(encoder.named_parameters())
    parameters.update(scale_parameters(parameters, masks, encoder.anatomy))
    for name, dimension, indices in _cuts(encoder.anatomy, kept):
        if name not in parameters:  # of a width that was 0 before
            continue
        index = torch.tensor(indices, dtype=torch.long, device=parameters[name].device)
        parameters[name] = parameters[name].index_select(dimension, index)
    smaller = SpeechEncoder(kept.anatomy(encoder.anatomy), encoder.dense_anatomy)
    wanted = dict(smaller.named_parameters())
    like = next(encoder.parameters())
    smaller = smaller.to(device=like.device, dtype=like.dtype)
    smaller.load_state_dict({name: parameters[name] for name in wanted})
    return SlicedEncoder(encoder=smaller.train(encoder.training), kept=kept)


def _layer_survivors(layer: LayerAnatomy, mask: LayerMasks) -> KeptLayer:
    attention = layer.attention and not _is_zero(mask.attention)
    feed_forward = layer.feed_forward and not _is_zero(mask.feed_forward)
    heads = []
    if attention:
        alive = set(range(len(layer.heads)) if mask.head is None else _nonzero(mask.head))
        qk_kept = set(range(layer.qk) if mask.qk is None else _nonzero(mask.qk))
        vo_kept = set(range(layer.vo) if mask.vo is None else _nonzero(mask.vo))
        qk_start = vo_start = 0
        for position, head in enumerate(layer.heads):
            qk = tuple(i for i in range(head.qk) if qk_start + i in qk_kept)
            vo = tuple(i for i in range(head.vo) if vo_start + i in vo_kept)
            if position in alive and vo:
                heads.append(KeptHead(index=head.index, qk=qk, vo=vo))
            qk_start += head.qk
            vo_start += head.vo
    intermediate: Indices = ()
    if feed_forward:
        intermediate = (
            tuple(range(layer.intermediate)) if mask.intermediate is None else _nonzero(mask.intermediate)
        )
    return KeptLayer(
        attention=attention, heads=tuple(heads), feed_forward=feed_forward, intermediate=intermediate
    )


def _cuts(anatomy: EncoderAnatomy, kept: KeptIndices) -> Iterator[tuple[str, int, Indices]]:
    """Every slice to take, as (parameter, dimension, indices)."""
    for index, channels in enumerate(kept.conv):
        layer = f"feature_extractor.conv_layers.{index}."
        yield layer + "conv.weight", 0, channels
        if anatomy.conv_bias:
            yield layer + "conv.bias", 0, channels
        if anatomy.conv_norm == "layer" or index == 0:
            yield layer + "layer_norm.weight", 0, channels
            yield layer + "layer_norm.bias", 0, channels
        if index + 1 < len(kept.conv):
            yield f"feature_extractor.conv_layers.{index + 1}.conv.weight", 1, channels
    if anatomy.projection_norm:
        yield "feature_projection.layer_norm.weight", 0, kept.conv[-1]
        yield "feature_projection.layer_norm.bias", 0, kept.conv[-1]
    yield "feature_projection.projection.weight", 1, kept.conv[-1]
    for index, (old, new) in enumerate(zip(anatomy.layers, kept.layers, strict=True)):
        if new.attention:
            yield from _attention_cuts(f"layers.{index}.attention.", anatomy, old, new)
        if new.feed_forward:
            feed_forward = f"layers.{index}.feed_forward."
            yield feed_forward + "intermediate_dense.weight", 0, new.intermediate
            yield feed_forward + "intermediate_dense.bias", 0, new.intermediate
            yield feed_forward + "output_dense.weight", 1, new.intermediate


def _attention_cuts(
    prefix: str, anatomy: EncoderAnatomy, old: LayerAnatomy, new: KeptLayer
) -> Iterator[tuple[str, int, Indices]]:
    qk_starts, vo_starts, positions = {}, {}, {}
    qk = vo = 0
    for position, head in enumerate(old.heads):
        positions[head.index], qk_starts[head.index], vo_starts[head.index] = position, qk, vo
        qk += head.qk
        vo += head.vo
    qk_rows = tuple(qk_starts[head.index] + i for head in new.heads for i in head.qk)
    vo_rows = tuple(vo_starts[head.index] + i for head in new.heads for i in head.vo)
    for name in ("q_proj", "k_proj"):
        yield f"{prefix}{name}.weight", 0, qk_rows
        yield f"{prefix}{name}.bias", 0, qk_rows
    yield prefix + "v_proj.weight", 0, vo_rows
    yield prefix + "v_proj.bias", 0, vo_rows
    yield prefix + "out_proj.weight", 1, vo_rows
    if anatomy.has_position_bias and new.heads:
        yield prefix + "gate.gru_rel_pos_const", 1, tuple(positions[head.index] for head in new.heads)


def _nonzero(mask: Tensor) -> Indices:
    return tuple(mask.detach().nonzero().flatten().tolist())


def _is_zero(mask: Tensor | None) -> bool:
    return mask is not None and float(mask.detach()) == 0.0
