"""L0 gates: the hard concrete distribution, sampling, expected sizes, final masks."""

from slimvox.gates.final import FinalMasks, check_reachable, final_masks, smallest_cost
from slimvox.gates.gates import GateGroup, Gates, gate_groups, gate_spans, masks_from_vector
from slimvox.gates.projection import project
from slimvox.gates.structures import STRUCTURES, Structure, Structures

__all__ = [
    "STRUCTURES",
    "FinalMasks",
    "GateGroup",
    "Gates",
    "Structure",
    "Structures",
    "check_reachable",
    "final_masks",
    "gate_groups",
    "gate_spans",
    "masks_from_vector",
    "project",
    "smallest_cost",
]
