"""Blocks of a layer with everything that does not depend on the audio computed in advance."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimvox.encoder.attention import SelfAttention
from slimvox.encoder.layer import FeedForward
from slimvox.encoder.position_bias import PositionBiasTable
from slimvox.structures.anatomy import EncoderAnatomy
from slimvox.structures.parts import LayerAnatomy

WIDTH_MULTIPLE = 4


class ExportedAttention(nn.Module):
    """`SelfAttention` with its sign reversed, as one matrix product in, two in the middle and one out.

    The rows of queries, keys, values and the two gate logits of each head form one matrix. Heads of unequal width are
    padded to a common width with zeros in the weights.
    """

    def __init__(
        self, layer: LayerAnatomy, attention: SelfAttention, anatomy: EncoderAnatomy, heads: list[int]
    ) -> None:
        """`heads`: original indices of the heads for which `forward` gets a position bias."""
        super().__init__()
        self.heads = len(layer.heads)
        self.bias_rows = [heads.index(head.index) for head in layer.heads]
        self.all_heads = self.bias_rows == list(range(len(heads)))
        self.out_bias = nn.Parameter(-attention.out_proj.bias.detach())
        if not self.heads:
            return
        qk_widths = [head.qk for head in layer.heads]
        vo_widths = [head.vo for head in layer.heads]
        self.qk_width, self.vo_width = _rounded(max(qk_widths)), _rounded(max(vo_widths))
        rows, biases = [], []
        for projection, widths, common, scale in (
            (attention.q_proj, qk_widths, self.qk_width, attention.scale),
            (attention.k_proj, qk_widths, self.qk_width, 1.0),
            (attention.v_proj, vo_widths, self.vo_width, 1.0),
        ):
            rows.append(_spread(projection.weight.detach() * scale, widths, common))
            packed = projection.weight.new_zeros(sum(widths)) if projection.bias is None else projection.bias
            biases.append(_spread(packed.detach() * scale, widths, common))
        self.has_gate = attention.gate is not None
        if attention.gate is not None:
            gate = attention.gate
            weight = gate.gru_rel_pos_linear.weight.detach().view(2, -1, anatomy.head_width).sum(1)
            bias = gate.gru_rel_pos_linear.bias.detach().view(2, -1).sum(1)
            logits = weight.new_zeros(2, self.heads, anatomy.attention_heads, anatomy.head_width)
            for position, head in enumerate(layer.heads):
                logits[:, position, head.index] = weight
            rows.append(logits.view(2 * self.heads, anatomy.width))
            biases.append(bias.repeat_interleave(self.heads))
            self.gate_constant = nn.Parameter(gate.gru_rel_pos_const.detach().reshape(self.heads))
        self.weight = nn.Parameter(torch.cat(rows).T.contiguous())
        self.bias = nn.Parameter(torch.cat(biases))
        out = _spread(attention.out_proj.weight.detach().T, vo_widths, self.vo_width)
        self.out_weight = nn.Parameter(-out.contiguous())

    def forward(self, x: Tensor, position_bias: Tensor | None, padding_bias: Tensor | None) -> Tensor:
        """The negative of `SelfAttention.forward`; `position_bias` is (heads, frames, frames)."""
        if not self.heads:
            return self.out_bias.expand_as(x)
        batch, frames, _ = x.shape
        heads = self.heads
        sizes = [heads * self.qk_width, heads * self.qk_width, heads * self.vo_width]
        parts = torch.split_with_sizes(
            x @ self.weight + self.bias, sizes + [heads, heads] * self.has_gate, -1
        )
        q = parts[0].reshape(batch, frames, heads, self.qk_width).transpose(1, 2)
        k = parts[1].reshape(batch, frames, heads, self.qk_width).permute(0, 2, 3, 1)
        v = parts[2].reshape(batch, frames, heads, self.vo_width).transpose(1, 2)
        scores = q @ k
        if self.has_gate:
            assert position_bias is not None
            first, second = torch.sigmoid(parts[3]), torch.sigmoid(parts[4])
            gate = first * (second * self.gate_constant - 1.0) + 2.0
            if not self.all_heads:
                position_bias = torch.cat([position_bias[index : index + 1] for index in self.bias_rows])
            scores = scores + gate.transpose(1, 2).unsqueeze(-1) * position_bias
        if padding_bias is not None:
            scores = scores + padding_bias
        attended = torch.softmax(scores, -1) @ v
        attended = attended.transpose(1, 2).reshape(batch, frames, heads * self.vo_width)
        return attended @ self.out_weight + self.out_bias


class ShiftedPositionBias(nn.Module):
    """`PositionBiasTable` for some heads, whose rows are made by shifting the row above rather than by an index."""

    def __init__(self, table: PositionBiasTable, heads: list[int]) -> None:
        """`heads`: original indices of the heads that are left in any layer."""
        super().__init__()
        self.table = table
        self.table.weight = nn.Parameter(table.weight[:, heads])

    def forward(self, frames: int) -> Tensor:
        """The ungated bias, (heads, frames, frames), indexed [head, query, key]."""
        distances = torch.arange(-frames, frames + 1)
        values = self.table.weight[self.table.bucket(distances)].T
        # A repeated sequence, cut into rows that are one shorter than its period, is shifted by one in each row.
        heads, period = values.shape[0], 2 * frames + 1
        repeated = values.unsqueeze(1).expand(heads, frames, period).reshape(heads, frames * period)
        return repeated[:, frames:].reshape(heads, frames, period - 1)[..., :frames]


class NegatedFeedForward(nn.Module):
    """`FeedForward` with its sign reversed."""

    def __init__(self, feed_forward: FeedForward) -> None:
        super().__init__()
        first, second = feed_forward.intermediate_dense, feed_forward.output_dense
        self.weight = nn.Parameter(first.weight.detach().T.contiguous())
        self.bias = nn.Parameter(first.bias.detach())
        self.out_weight = nn.Parameter(-second.weight.detach().T.contiguous())
        self.out_bias = nn.Parameter(-second.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """(batch, frames, width) to the same shape, to be subtracted from the input."""
        if not len(self.bias):
            return self.out_bias.expand_as(x)
        return F.gelu(x @ self.weight + self.bias) @ self.out_weight + self.out_bias


def _rounded(width: int) -> int:
    """Width rounded up to at least one multiple, so that heads without queries are not a special case."""
    return max(1, -(-width // WIDTH_MULTIPLE)) * WIDTH_MULTIPLE


def _spread(packed: Tensor, widths: list[int], common: int) -> Tensor:
    """Rows of heads of unequal width, each head padded with zeros to `common` rows."""
    spread = packed.new_zeros(len(widths), common, *packed.shape[1:])
    for position, part in enumerate(torch.split_with_sizes(packed, widths)):
        spread[position, : len(part)] = part
    return spread.flatten(0, 1)
