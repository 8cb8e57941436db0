"""Distillation losses, one idea per file; see `docs/extending/loss.md` for how to add one."""

from slimvox.losses.base import (
    ComparedStates,
    Loss,
    loss,
    loss_names,
    losses,
    register_loss,
    unregister_loss,
)
from slimvox.losses.relation import TemporalRelation, temporal_relation_loss
from slimvox.losses.states import CosineDistance, MeanAbsoluteDifference

for _loss in (MeanAbsoluteDifference(), CosineDistance(), TemporalRelation()):
    register_loss(_loss)

__all__ = [
    "ComparedStates",
    "Loss",
    "loss",
    "loss_names",
    "losses",
    "register_loss",
    "temporal_relation_loss",
    "unregister_loss",
]
