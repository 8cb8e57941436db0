"""Linear layers that may have been pruned to nothing."""

from __future__ import annotations

import math

import torch
from torch import nn


def packed_linear(inputs: int, outputs: int) -> nn.Linear:
    """`nn.Linear(inputs, outputs)` for any sizes, 0 included.

    A map from 0 inputs gives its bias, one to 0 outputs gives nothing; both are what pruning everything means.
    (`nn.Linear` itself warns when it initialises an empty tensor.)
    """
    linear = torch.nn.utils.skip_init(nn.Linear, inputs, outputs)
    bound = 1 / math.sqrt(max(1, inputs))
    with torch.no_grad():
        for parameter in (linear.weight, linear.bias):
            if parameter.numel():
                parameter.uniform_(-bound, bound)
    return linear
