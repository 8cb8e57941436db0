"""WavLM's position bias without an index of frames by frames."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from slimvox.encoder.position_bias import PositionBiasTable


class ShiftedPositionBias(nn.Module):
    """`PositionBiasTable` for some heads, each row of the bias made by shifting the row above."""

    def __init__(self, table: PositionBiasTable, heads: list[int]) -> None:
        """`heads`: original indices of the heads that are left in any layer."""
        super().__init__()
        self.table = table
        self.table.weight = nn.Parameter(table.weight[:, heads])

    def forward(self, frames: int) -> Tensor:
        """The ungated bias, (heads, frames, frames), indexed [head, query, key]."""
        distances = torch.arange(-frames, frames)
        values = self.table.weight[self.table.bucket(distances)].T
        # Repeated without end, and cut into rows one shorter than its period, a sequence moves on by one per row.
        heads, period = values.shape[0], 2 * frames
        repeated = values.unsqueeze(1).expand(heads, frames, period).reshape(heads, frames * period)
        return repeated[:, frames:].reshape(heads, frames, period - 1)[..., :frames]
