"""L0 gates: the hard concrete distribution, sampling, expected counts, final masks."""

from slimvox.pruning.gates.final import (
    FinalMasks,
    check_reachable,
    final_masks,
    smallest_cost,
    surviving_values,
)
from slimvox.pruning.gates.gates import GateLayout, Gates
from slimvox.pruning.gates.projection import project

__all__ = [
    "FinalMasks",
    "GateLayout",
    "Gates",
    "check_reachable",
    "final_masks",
    "project",
    "smallest_cost",
    "surviving_values",
]
