"""Linear layers that may have been pruned to nothing."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear


class EmptyLinear(NonDynamicallyQuantizableLinear):
    """`nn.Linear` of which at least one size is 0.

    A map from 0 inputs gives its bias, one to 0 outputs gives nothing; both are what pruning everything means. A weight
    or bias of size 0 is a non-persistent buffer instead of a parameter: it is not stored, and nothing (such as
    `DistributedDataParallel`) waits for its gradient. The base class tells quantisers to leave it alone.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        for name, parameter in [*self.named_parameters()]:
            if not parameter.numel():
                delattr(self, name)
                self.register_buffer(name, parameter.detach(), persistent=False)

    def reset_parameters(self) -> None:
        """Initialise as `nn.Linear` does, without its warning that an empty tensor cannot be."""
        if self.bias.numel():
            nn.init.zeros_(self.bias)


def linear_map(inputs: int, outputs: int) -> nn.Linear:
    """An `nn.Linear` for any sizes, 0 included.

    Where there is something to multiply it is exactly an `nn.Linear`, no subclass: quantisers select by type.
    """
    return nn.Linear(inputs, outputs) if inputs and outputs else EmptyLinear(inputs, outputs)
