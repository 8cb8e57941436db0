"""Output channels of the front end's convolutions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from slimvox.structures.anatomy import MEL_WINDOW, EncoderAnatomy
from slimvox.structures.base import Address, Block, Rows, Structure, Term, row_norms

FRONT_END, PROJECTION = Block("front_end"), Block("projection")


class ConvChannels(Structure):
    """Channels of each convolution, scaled where the next module reads them.

    Layer norms over channels count the kept channels only, see `slimvox.encoder.front_end.ChannelNorm`.
    """

    name = "conv"
    title = "front-end channels"
    enabled = False
    min_kept = 1
    multiple = 16
    per_layer = False

    def indices(self, anatomy: EncoderAnatomy) -> range:
        """One address per convolution."""
        return range(len(anatomy.convolutions))

    def spans(self, anatomy: EncoderAnatomy, index: int) -> tuple[int, ...]:
        """All channels are one width."""
        return (anatomy.convolutions[index].channels,)

    def scaled(self, anatomy: EncoderAnatomy, index: int) -> tuple[Rows, ...]:
        """Input channels of the next convolution, or of the feature projection."""
        return (_readers(anatomy, index),)

    def cut(self, anatomy: EncoderAnatomy, index: int) -> tuple[Rows, ...]:
        """Filters, biases, norms, and the input channels of the module that reads them."""
        layer = f"feature_extractor.conv_layers.{index}."
        names = [layer + "conv.weight"]
        if anatomy.conv_bias:
            names.append(layer + "conv.bias")
        if _has_norm(anatomy, index):
            names += [layer + "layer_norm.weight", layer + "layer_norm.bias"]
        if _is_last(anatomy, index) and anatomy.projection_norm:
            names += ["feature_projection.layer_norm.weight", "feature_projection.layer_norm.bias"]
        return (*(Rows(name, 0) for name in names), _readers(anatomy, index))

    def shrink(
        self, anatomy: EncoderAnatomy, index: int, kept: tuple[tuple[int, ...], ...]
    ) -> EncoderAnatomy:
        """The convolution with as many channels as are kept."""
        convolutions = list(anatomy.convolutions)
        convolutions[index] = replace(convolutions[index], channels=len(kept[0]))
        return replace(anatomy, convolutions=tuple(convolutions))

    def parameters(self, anatomy: EncoderAnatomy, index: int) -> Iterator[Term]:
        """Filters read all channels of the convolution below; biases and norms count per channel."""
        address = self.address(index)
        kernel = anatomy.convolutions[index].kernel
        per_channel = int(anatomy.conv_bias) + 2 * int(_has_norm(anatomy, index))
        inputs = _inputs(anatomy, index)
        yield Term(block=FRONT_END, coefficient=kernel * inputs, factors=self._filters(index))
        yield Term(block=FRONT_END, coefficient=per_channel, factors=(address,))
        if _is_last(anatomy, index):
            columns = anatomy.width * _projection_kernel(anatomy) + 2 * int(anatomy.projection_norm)
            yield Term(block=PROJECTION, coefficient=columns, factors=(address,))

    def macs(self, anatomy: EncoderAnatomy, index: int, lengths: tuple[int, ...]) -> Iterator[Term]:
        """Each filter at each output position; the projection at each frame; the mel filters at each window."""
        work = anatomy.convolutions[index].kernel * lengths[index]
        yield Term(block=FRONT_END, coefficient=work * _inputs(anatomy, index), factors=self._filters(index))
        if index == 0 and anatomy.mel_bins:
            frequencies = MEL_WINDOW // 2 + 1
            yield Term(block=FRONT_END, coefficient=frequencies * anatomy.mel_bins * lengths[0])
        if _is_last(anatomy, index):
            work = anatomy.width * _projection_kernel(anatomy) * lengths[-1]
            yield Term(block=PROJECTION, coefficient=work, factors=(self.address(index),))

    def times(self, anatomy: EncoderAnatomy, index: int, lengths: tuple[int, ...]) -> Iterator[Term]:
        """The first convolution by its output; the others by output (norm, GELU) and by multiply-accumulates."""
        address, length = self.address(index), lengths[index]
        output = "first output" if index == 0 else "output"
        yield Term(block=FRONT_END, coefficient=length, factors=(address,), feature=output)
        if index:
            work = anatomy.convolutions[index].kernel * length
            yield Term(block=FRONT_END, coefficient=work, factors=self._filters(index), feature="macs")
        if _is_last(anatomy, index):
            yield Term(block=PROJECTION, coefficient=1, factors=(address,), feature="channels")

    def magnitude(self, parameters: Mapping[str, Tensor], anatomy: EncoderAnatomy, index: int) -> Tensor:
        """Norm of each filter."""
        return row_norms(parameters[f"feature_extractor.conv_layers.{index}.conv.weight"])

    def forward_arguments(self, anatomy: EncoderAnatomy, masks: Mapping[Address, Tensor]) -> dict[str, Any]:
        """`kept_channels`: 1 for channels that the norms count and 0 for the others, by convolution."""
        masked = [masks.get(self.address(index)) for index in self.indices(anatomy)]
        if all(mask is None for mask in masked):
            return {}
        kept = tuple(None if mask is None else (mask.detach() != 0).to(mask.dtype) for mask in masked)
        return {"kept_channels": kept}

    def _filters(self, index: int) -> tuple[Address, ...]:
        """Counts whose product is the number of input and output channels, without inputs that are never pruned."""
        below = (self.address(index - 1),) if index else ()
        return (*below, self.address(index))


def _is_last(anatomy: EncoderAnatomy, index: int) -> bool:
    return index == len(anatomy.convolutions) - 1


def _inputs(anatomy: EncoderAnatomy, index: int) -> int:
    """Input channels that are never pruned: those of the first convolution, and 1 for all others."""
    return anatomy.mel_bins or 1 if index == 0 else 1


def _projection_kernel(anatomy: EncoderAnatomy) -> int:
    return 1 if anatomy.projection_convolution is None else anatomy.projection_convolution.kernel


def _has_norm(anatomy: EncoderAnatomy, index: int) -> bool:
    return anatomy.conv_norm == "layer" or (anatomy.conv_norm == "group" and index == 0)


def _readers(anatomy: EncoderAnatomy, index: int) -> Rows:
    if _is_last(anatomy, index):
        return Rows("feature_projection.projection.weight", 1)
    return Rows(f"feature_extractor.conv_layers.{index + 1}.conv.weight", 1)
