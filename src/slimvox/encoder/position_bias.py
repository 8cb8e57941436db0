"""WavLM's relative position bias: a table shared by all layers, gated by each layer's input.

Chen et al., "WavLM: Large-Scale Self-Supervised Pre-Training for Full Stack Speech Processing", section III-B.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from slimvox.encoder.backend import inference_obstacle, takes
from slimvox.structures.anatomy import POSITION_GATE_OUTPUTS, EncoderAnatomy

BY_DISTANCE = "position bias by distance"


def bias_of_pairs(bias: Tensor) -> Tensor:
    """The bias of every pair of frames, (heads, frames, frames), indexed [head, query, key].

    Args:
        bias: the same, or the bias of every distance from query to key, (heads, 2 * frames - 1), from the farthest key
            on the left to the farthest one on the right.
    """
    if bias.dim() == 3:
        return bias
    frames = (bias.shape[1] + 1) // 2
    position = torch.arange(frames, device=bias.device)
    return bias[:, position[None, :] - position[:, None] + frames - 1]


class PositionBiasTable(nn.Module):
    """The learned bias of every bucket of relative positions, for every head of the original encoder.

    The original keeps the table in its first layer; here it belongs to the encoder, so that pruning the attention of
    the first layer does not affect the bias of the others.
    """

    def __init__(self, anatomy: EncoderAnatomy) -> None:
        super().__init__()
        self.buckets = anatomy.position_buckets
        self.max_distance = anatomy.position_max_distance
        self.weight = nn.Parameter(torch.empty(self.buckets, anatomy.attention_heads))
        nn.init.normal_(self.weight)

    def forward(self, frames: int) -> Tensor:
        """The ungated bias.

        Returns:
            (original heads, frames, frames), indexed [head, query, key]; for inference on a CPU by distance, see
            `bias_of_pairs`.
        """
        distances = torch.arange(1 - frames, frames, device=self.weight.device)
        by_distance = self.weight[self.bucket(distances)].T
        if takes(BY_DISTANCE, inference_obstacle(self.weight)):
            return by_distance.contiguous()
        return bias_of_pairs(by_distance)

    def bucket(self, relative_position: Tensor) -> Tensor:
        """T5's bidirectional buckets: exact for near positions, logarithmic up to `max_distance`, then constant."""
        half = self.buckets // 2
        exact = half // 2
        distance = relative_position.abs()
        ratio = torch.log(distance.clamp(min=1).float() / exact) / math.log(self.max_distance / exact)
        far = (exact + ratio * (half - exact)).long().clamp(max=half - 1)
        return (relative_position > 0).long() * half + torch.where(distance < exact, distance, far)


class PositionBiasGate(nn.Module):
    """Scales the bias of each head and query by a gate computed from the layer's input.

    The gate of a head reads the slice of the input that belongs to its original index, whatever was pruned
    from its queries and
    keys. Parameters are named as in the original: `gru_rel_pos_linear`, `gru_rel_pos_const`.
    """

    def __init__(self, anatomy: EncoderAnatomy, head_indices: list[int]) -> None:
        super().__init__()
        self.original_heads = anatomy.attention_heads
        self.all_heads = len(head_indices) == self.original_heads
        self.gru_rel_pos_linear = nn.Linear(anatomy.head_width, POSITION_GATE_OUTPUTS)
        self.gru_rel_pos_const = nn.Parameter(torch.ones(1, len(head_indices), 1, 1))
        self.head_indices: Tensor
        self.register_buffer("head_indices", torch.tensor(head_indices, dtype=torch.long), persistent=False)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """The gated bias.

        Args:
            x: the layer's input, (batch, frames, width).
            bias: the table's output.

        Returns:
            (batch, kept heads, frames, frames), to be added to the attention scores.
        """
        bias = bias_of_pairs(bias)
        return self.scales(x) * (bias if self.all_heads else bias[self.head_indices])

    def scales(self, x: Tensor) -> Tensor:
        """The factor of each head and query, (batch, kept heads, frames, 1), for x (batch, frames, width)."""
        batch, frames, _ = x.shape
        slices = x.view(batch, frames, self.original_heads, -1)
        if not self.all_heads:
            slices = slices[:, :, self.head_indices]
        logits = (
            self.gru_rel_pos_linear(slices).view(batch, frames, -1, 2, POSITION_GATE_OUTPUTS // 2).sum(-1)
        )
        first, second = torch.sigmoid(logits).transpose(1, 2).chunk(2, dim=-1)
        scales: Tensor = first * (second * self.gru_rel_pos_const - 1.0) + 2.0
        return scales
