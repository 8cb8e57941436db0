"""Self-attention whose heads may differ in width."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimvox.encoder.backend import (
    attention_kernels,
    backend_obstacle,
    inference_obstacle,
    module_obstacle,
    takes,
)
from slimvox.encoder.linear import apply_linear, linear, linear_map
from slimvox.encoder.position_bias import PositionBiasGate
from slimvox.structures.anatomy import EncoderAnatomy
from slimvox.structures.parts import LayerAnatomy

WIDTH_MULTIPLE = 8
"""Multiple to which the common width of heads of unequal width is rounded up (one SIMD register)."""
FEWEST_ROWS = 256
"""Number of frames from which one product for queries, keys and values makes up for copying their weights together."""
PART_NUMBERS = 1 << 20
"""Approximate number of gated biases that are computed at a time: in float32 4 MiB, which stay in the cache."""
ONE_PRODUCT, IN_PARTS = "projections by one product", "attention in parts"


class SelfAttention(nn.Module):
    """Multi-head self-attention through `scaled_dot_product_attention`.

    Weights are stored packed: the rows of `q_proj`, `k_proj` and `v_proj` (and the columns of `out_proj`) are the
    kept dimensions of the kept heads, one after the other. Where heads differ, they are spread with zeros to a
    common width on the way to the attention kernel. The softmax scale stays that of the original head width. Without
    heads, only the bias of `out_proj` is left.
    """

    def __init__(self, anatomy: EncoderAnatomy, layer: LayerAnatomy) -> None:
        super().__init__()
        self.heads = len(layer.heads)
        self.scale = anatomy.head_width**-0.5
        if self.heads:
            self.q_proj = linear_map(anatomy.width, layer.qk)
            self.k_proj = linear_map(anatomy.width, layer.qk, bias=anatomy.key_bias)
            self.v_proj = linear_map(anatomy.width, layer.vo)
        self.out_proj = linear_map(layer.vo, anatomy.width)
        self.gate: PositionBiasGate | None = None
        if anatomy.has_position_bias and self.heads:
            self.gate = PositionBiasGate(anatomy, [head.index for head in layer.heads])

        qk_widths = [head.qk for head in layer.heads]
        vo_widths = [head.vo for head in layer.heads]
        self.head_width = _common_width(qk_widths + vo_widths)
        self.qk_slots: Tensor | None
        self.vo_slots: Tensor | None
        self.register_buffer("qk_slots", _slots(qk_widths, self.head_width), persistent=False)
        self.register_buffer("vo_slots", _slots(vo_widths, self.head_width), persistent=False)

    def forward(self, x: Tensor, position_bias: Tensor | None, padding_bias: Tensor | None) -> Tensor:
        """Attend.

        Args:
            x: (batch, frames, width).
            position_bias: WavLM's ungated bias, (original heads, frames, frames), or None.
            padding_bias: 0 for frames that may be attended to and -inf for padding, (batch, 1, 1, frames), or None.

        Returns:
            (batch, frames, width).
        """
        if not self.heads:
            return apply_linear(self.out_proj, x[..., :0])
        q, k, v = self._projections(x)
        if self._takes_parts(q, position_bias):
            assert position_bias is not None and self.gate is not None
            attended = self._in_parts(q, k, v, self.gate.scales(x), position_bias, padding_bias)
        else:
            bias = padding_bias
            if self.gate is not None:
                assert position_bias is not None
                bias = self.gate(x, position_bias)
                if padding_bias is not None:
                    bias = bias + padding_bias
            if bias is not None:
                bias = bias.to(q.dtype)
            with attention_kernels(q):
                attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=self.scale)
        attended = attended.transpose(1, 2).reshape(*x.shape[:2], self.heads * self.head_width)
        if self.vo_slots is not None:
            attended = attended[..., self.vo_slots]
        return apply_linear(self.out_proj, attended)

    def _projections(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (batch, heads, frames, common width)."""
        maps = ((self.q_proj, self.qk_slots), (self.k_proj, self.qk_slots), (self.v_proj, self.vo_slots))
        if not takes(ONE_PRODUCT, self._one_product_obstacle(x)):
            q, k, v = (self._heads(x, projection, slots) for projection, slots in maps)
            return q, k, v
        rows, dtype = self.heads * self.head_width, _product_dtype(x)
        spread = self.qk_slots is not None or self.vo_slots is not None
        weight = (x.new_zeros if spread else x.new_empty)(3, rows, x.shape[-1], dtype=dtype)
        bias = x.new_zeros(3, rows, dtype=dtype)
        for place, (projection, slots) in enumerate(maps):
            for packed, into in ((projection.weight, weight), (projection.bias, bias)):
                if packed is None:
                    continue
                if slots is None:
                    into[place] = packed
                else:
                    into[place].index_copy_(0, slots, packed.to(dtype))
        y = linear(x, weight.flatten(0, 1), bias.flatten())
        y = y.view(*x.shape[:2], 3, self.heads, self.head_width)
        q, k, v = y.permute(2, 0, 3, 1, 4)
        return q, k, v

    def _one_product_obstacle(self, x: Tensor) -> str | None:
        """The reason why the three projections are not computed by one product, or None."""
        obstacle = inference_obstacle(x)
        for projection in (self.q_proj, self.k_proj, self.v_proj):
            obstacle = obstacle or module_obstacle(projection, nn.Linear)
        if obstacle is not None:
            return obstacle
        dtype = self.q_proj.weight.dtype
        in_place = self.qk_slots is None and self.vo_slots is None and _product_dtype(x) == dtype
        if in_place and x.numel() // x.shape[-1] < FEWEST_ROWS:
            return "copying the weights takes longer than it saves"
        return None

    def _takes_parts(self, q: Tensor, position_bias: Tensor | None) -> bool:
        if self.gate is None or position_bias is None or position_bias.dim() != 2:
            return False
        return takes(IN_PARTS, inference_obstacle(q) or module_obstacle(self.gate, PositionBiasGate))

    def _in_parts(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        scales: Tensor,
        by_distance: Tensor,
        padding_bias: Tensor | None,
    ) -> Tensor:
        """Attention with a gated position bias that never exists as a whole.

        The keys are taken from the last to the first: then the bias of the i-th query and the j-th of them is the (i +
        j)-th of all distances, a view.

        Args:
            q: (batch, heads, frames, common width).
            k: the same shape.
            v: the same shape.
            scales: `PositionBiasGate.scales`.
            by_distance: (original heads, 2 * frames - 1).
            padding_bias: see `forward`.

        Returns:
            (batch, heads, frames, common width).
        """
        assert self.gate is not None
        batch, heads, frames, _ = q.shape
        k, v = k.flip(2), v.flip(2)
        distances = by_distance[self.gate.head_indices].flip(1).to(q.dtype)
        pairs = distances.as_strided((heads, frames, frames), (2 * frames - 1, 1, 1))
        padding = None if padding_bias is None else padding_bias.to(q.dtype).flip(-1)
        scales = scales.to(q.dtype)
        attended = q.new_empty(batch, frames, heads, self.head_width).transpose(1, 2)
        clips, some_heads, queries = _part_sizes(batch, heads, frames)
        scratch = q.new_empty(clips * some_heads * queries * frames)
        for clip, head, query in itertools.product(
            range(0, batch, clips), range(0, heads, some_heads), range(0, frames, queries)
        ):
            part = slice(clip, clip + clips), slice(head, head + some_heads), slice(query, query + queries)
            scale = scales[part]
            bias = scratch[: scale.numel() * frames].view(*scale.shape[:3], frames)
            torch.mul(scale, pairs[part[1:]], out=bias)
            if padding is not None:
                bias += padding[part[0]]
            attended[part] = F.scaled_dot_product_attention(
                q[part], k[part[:2]], v[part[:2]], attn_mask=bias, scale=self.scale
            )
        return attended

    def _heads(self, x: Tensor, projection: nn.Linear, slots: Tensor | None) -> Tensor:
        """Projection split into heads, (batch, heads, frames, common width)."""
        rows = self.heads * self.head_width
        if slots is None:
            y = apply_linear(projection, x)
        elif takes("spreading of weights", backend_obstacle() or module_obstacle(projection, nn.Linear)):
            # Spreading the weights rather than the activations: there are far fewer of them.
            weight = projection.weight.new_zeros(rows, x.shape[-1]).index_copy(0, slots, projection.weight)
            bias: Tensor | None = projection.bias
            if bias is not None:
                bias = bias.new_zeros(rows).index_copy(0, slots, bias)
            y = linear(x, weight, bias)
        else:
            packed = apply_linear(projection, x)
            y = packed.new_zeros(*packed.shape[:-1], rows).index_copy(-1, slots, packed)
        return y.view(*x.shape[:2], self.heads, self.head_width).transpose(1, 2)


def _product_dtype(x: Tensor) -> torch.dtype:
    """Type in which a product of x is computed, with or without autocast."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype


def _part_sizes(batch: int, heads: int, frames: int) -> tuple[int, int, int]:
    """Number of clips, of heads and of queries that are attended to at a time."""
    clips = min(batch, max(1, PART_NUMBERS // (heads * frames * frames)))
    some_heads = min(heads, max(1, PART_NUMBERS // (frames * frames)))
    return clips, some_heads, min(frames, max(1, PART_NUMBERS // frames))


def _common_width(widths: list[int]) -> int:
    """The width at which all heads are computed: their common width, or the maximum rounded up if they differ."""
    if not widths:
        return 0
    if min(widths) == max(widths):
        return widths[0]
    return -(-max(widths) // WIDTH_MULTIPLE) * WIDTH_MULTIPLE


def _slots(widths: list[int], common: int) -> Tensor | None:
    """Position of each packed row among heads * common rows; None if the rows are already in place."""
    if all(width == common for width in widths):
        return None
    return torch.cat([torch.arange(width) + head * common for head, width in enumerate(widths)])
