"""The pruning run, which combines encoder, gates, budget, distillation and audio."""

from slimvox.pruning.callbacks import Callback, HeldOutDistance, TrainingState
from slimvox.pruning.controls import CONTROLS, Control
from slimvox.pruning.interrupts import RunInterrupted
from slimvox.pruning.parts import PruningParts
from slimvox.pruning.pruner import Pruner, prune
from slimvox.pruning.result import PruneResult

__all__ = [
    "CONTROLS",
    "Callback",
    "Control",
    "HeldOutDistance",
    "PruneResult",
    "Pruner",
    "PruningParts",
    "RunInterrupted",
    "TrainingState",
    "prune",
]
