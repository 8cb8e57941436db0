"""Linear layers that may have been pruned to nothing."""

from __future__ import annotations

from torch import Tensor, nn

from slimvox.encoder.products import linear


class PackedLinear(nn.Linear):
    """`nn.Linear` for any sizes, 0 included.

    A map from 0 inputs gives its bias, one to 0 outputs gives nothing; both are what pruning everything means.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) to (..., outputs)."""
        return linear(x, self.weight, self.bias)

    def reset_parameters(self) -> None:
        """Initialise as `nn.Linear` does, without its warning that an empty tensor can't be."""
        if self.weight.numel():
            super().reset_parameters()
        elif self.bias.numel():
            nn.init.zeros_(self.bias)
