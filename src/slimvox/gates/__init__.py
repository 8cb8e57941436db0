"""L0 gates: the hard concrete distribution, sampling, expected counts, final masks."""

from slimvox.gates.final import FinalMasks, check_reachable, final_masks, smallest_cost
from slimvox.gates.gates import GateLayout, Gates
from slimvox.gates.projection import project

__all__ = [
    "FinalMasks",
    "GateLayout",
    "Gates",
    "check_reachable",
    "final_masks",
    "project",
    "smallest_cost",
]
