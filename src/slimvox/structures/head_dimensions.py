"""Dimensions of attention heads: of queries and keys, and of values and outputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Literal

from torch import Tensor

from slimvox.structures.anatomy import EncoderAnatomy
from slimvox.structures.base import Block, Rows, Structure, Term, row_norms, with_layer


class HeadDimensions(Structure):
    """One of the two widths of each head.

    A mask scales one map only (the queries, not the keys as well), so that each value counts once.
    """

    inside = "head"
    span_per_owner = True
    multiple = 8
    narrowest = 16
    common_width = True

    def __init__(
        self,
        name: Literal["qk", "vo"],
        title: str,
        column: str,
        *,
        scaled: str,
        rows: tuple[str, ...],
        columns: tuple[str, ...],
    ) -> None:
        """Describe a width.

        Args:
            name: name of the structure and of its field in `HeadAnatomy`.
            title: plural noun for tables and plots.
            column: short heading in tables.
            scaled: map whose output rows a mask scales.
            rows: maps (with bias) that write the dimensions.
            columns: maps that read them.
        """
        self.name, self.title, self.column = name, title, column
        self.scaled_map, self.rows, self.columns = scaled, rows, columns

    def spans(self, anatomy: EncoderAnatomy, index: int) -> tuple[int, ...]:
        """One width per head."""
        return tuple(getattr(head, self.name) for head in anatomy.layers[index].heads)

    def span_positions(self, anatomy: EncoderAnatomy, index: int) -> tuple[int, ...]:
        """Original index of each head."""
        return tuple(head.index for head in anatomy.layers[index].heads)

    def scaled(self, anatomy: EncoderAnatomy, index: int) -> tuple[Rows, ...]:
        """Weight and bias of one map."""
        return tuple(
            Rows(f"layers.{index}.attention.{self.scaled_map}.{part}", 0) for part in ("weight", "bias")
        )

    def cut(self, anatomy: EncoderAnatomy, index: int) -> tuple[Rows, ...]:
        """Rows (with bias) and columns of all maps."""
        prefix = f"layers.{index}.attention."
        return (
            *(Rows(f"{prefix}{name}.{part}", 0) for name in self.rows for part in ("weight", "bias")),
            *(Rows(f"{prefix}{name}.weight", 1) for name in self.columns),
        )

    def shrink(
        self, anatomy: EncoderAnatomy, index: int, kept: tuple[tuple[int, ...], ...]
    ) -> EncoderAnatomy:
        """Heads of the widths that are kept."""
        heads = zip(anatomy.layers[index].heads, kept, strict=True)
        return with_layer(
            anatomy, index, heads=tuple(replace(head, **{self.name: len(each)}) for head, each in heads)
        )

    def parameters(self, anatomy: EncoderAnatomy, index: int) -> Iterator[Term]:
        """A row with bias in each map that writes a dimension, a column in each that reads it."""
        biases = sum(name != "k_proj" or anatomy.key_bias for name in self.rows)
        size = (len(self.rows) + len(self.columns)) * anatomy.width + biases
        yield Term(block=Block("attention", index), coefficient=size, factors=(self.address(index),))

    def macs(self, anatomy: EncoderAnatomy, index: int, lengths: tuple[int, ...]) -> Iterator[Term]:
        """Two projections of each frame, and the scores (or the weighted sum) for each pair of frames."""
        frames = lengths[-1]
        work = 2 * anatomy.width * frames + frames * frames
        yield Term(block=Block("attention", index), coefficient=work, factors=(self.address(index),))

    def times(self, anatomy: EncoderAnatomy, index: int, lengths: tuple[int, ...]) -> Iterator[Term]:
        """Proportional to the dimensions, at one rate for both widths."""
        factors = (self.address(index),)
        yield Term(block=Block("attention", index), coefficient=1, factors=factors, feature="dimensions")

    def magnitude(self, parameters: Mapping[str, Tensor], anatomy: EncoderAnatomy, index: int) -> Tensor:
        """Product of the norms of the rows that write and the columns that read a dimension."""
        prefix = f"layers.{index}.attention."
        norms = [row_norms(parameters[f"{prefix}{name}.weight"]) for name in self.rows]
        norms += [row_norms(parameters[f"{prefix}{name}.weight"].T) for name in self.columns]
        product = norms[0]
        for each in norms[1:]:
            product = product * each
        return product


QUERY_KEY = HeadDimensions(
    "qk", "query and key dimensions", "q/k", scaled="q_proj", rows=("q_proj", "k_proj"), columns=()
)
VALUE = HeadDimensions(
    "vo", "value dimensions", "v/o", scaled="v_proj", rows=("v_proj",), columns=("out_proj",)
)
