"""The pruning run: what joins encoder, gates, budget, distillation and audio."""

from slimvox.pruning.controls import CONTROLS, Control
from slimvox.pruning.interrupts import RunInterrupted
from slimvox.pruning.result import PruneResult
from slimvox.pruning.run import prune

__all__ = ["CONTROLS", "Control", "PruneResult", "RunInterrupted", "prune"]
