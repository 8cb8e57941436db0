"""Self-attention whose heads may differ in width."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimvox.encoder.backend import attention_kernels, backend_obstacle, module_obstacle, takes
from slimvox.encoder.linear import apply_linear, linear, linear_map
from slimvox.encoder.position_bias import PositionBiasGate
from slimvox.structures.anatomy import EncoderAnatomy, LayerAnatomy

WIDTH_MULTIPLE = 8
"""Multiple to which the common width of heads of unequal width is rounded up (one SIMD register)."""


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
        batch, frames, _ = x.shape
        q = self._heads(x, self.q_proj, self.qk_slots)
        k = self._heads(x, self.k_proj, self.qk_slots)
        v = self._heads(x, self.v_proj, self.vo_slots)
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
        attended = attended.transpose(1, 2).reshape(batch, frames, self.heads * self.head_width)
        if self.vo_slots is not None:
            attended = attended[..., self.vo_slots]
        return apply_linear(self.out_proj, attended)

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
