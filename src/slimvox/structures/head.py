"""Whole attention heads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from slimvox.structures.anatomy import POSITION_GATE_OUTPUTS, EncoderAnatomy
from slimvox.structures.base import Block, Rows, Structure, Term, row_norms, with_layer


class AttentionHeads(Structure):
    """Heads of each layer. A head is removed with its last value dimension, since it then has no output."""

    name = "head"
    title = "heads"
    kind = "unit"
    inside = "attention"
    needs = ("vo",)

    def spans(self, anatomy: EncoderAnatomy, index: int) -> tuple[int, ...]:
        """All heads of a layer are one span."""
        heads = len(anatomy.layers[index].heads)
        return (heads,) if heads else ()

    def scaled(self, anatomy: EncoderAnatomy, index: int) -> tuple[Rows, ...]:
        """The value rows of each head."""
        prefix = f"layers.{index}.attention.v_proj."
        widths = tuple(head.vo for head in anatomy.layers[index].heads)
        return (Rows(prefix + "weight", 0, widths), Rows(prefix + "bias", 0, widths))

    def cut(self, anatomy: EncoderAnatomy, index: int) -> tuple[Rows, ...]:
        """The constant of WavLM's position-bias gate; the maps' rows are those of the dimensions in the head."""
        if not anatomy.has_position_bias:
            return ()
        return (Rows(f"layers.{index}.attention.gate.gru_rel_pos_const", 1),)

    def shrink(
        self, anatomy: EncoderAnatomy, index: int, kept: tuple[tuple[int, ...], ...]
    ) -> EncoderAnatomy:
        """The heads that are kept, each with its original index."""
        heads = anatomy.layers[index].heads
        return with_layer(anatomy, index, heads=tuple(heads[place] for place in kept[0]))

    def parameters(self, anatomy: EncoderAnatomy, index: int) -> Iterator[Term]:
        """WavLM's position-bias gate: a constant per head, and one linear map as long as there is a head."""
        if anatomy.has_position_bias:
            block, factors = Block("attention", index), (self.address(index),)
            gate = POSITION_GATE_OUTPUTS * (anatomy.head_width + 1)
            yield Term(block=block, coefficient=1, factors=factors)
            yield Term(block=block, coefficient=gate, factors=factors, once=True)
            # The shared table is removed with the last head that uses it.
            readers = self.addresses(anatomy)
            if self.address(index) == readers[0]:
                table = anatomy.position_buckets * anatomy.attention_heads
                yield Term(block=Block("position"), coefficient=table, factors=readers, once=True)

    def macs(self, anatomy: EncoderAnatomy, index: int, lengths: tuple[int, ...]) -> Iterator[Term]:
        """WavLM's position-bias gate of each head and frame."""
        if anatomy.has_position_bias:
            work = POSITION_GATE_OUTPUTS * anatomy.head_width * lengths[-1]
            yield Term(block=Block("attention", index), coefficient=work, factors=(self.address(index),))

    def times(self, anatomy: EncoderAnatomy, index: int, lengths: tuple[int, ...]) -> Iterator[Term]:
        """A constant per head."""
        yield Term(
            block=Block("attention", index), coefficient=1, factors=(self.address(index),), feature="head"
        )

    def magnitude(self, parameters: Mapping[str, Tensor], anatomy: EncoderAnatomy, index: int) -> Tensor:
        """Mean over the head's value dimensions of the norms of the rows that write and the columns that read them."""
        prefix = f"layers.{index}.attention."
        values = row_norms(parameters[prefix + "v_proj.weight"]) * row_norms(
            parameters[prefix + "out_proj.weight"].T
        )
        widths = [head.vo for head in anatomy.layers[index].heads]
        return torch.stack([part.mean() for part in torch.split(values, widths)])
