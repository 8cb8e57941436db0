"""Distillation of the teacher's hidden states into the student."""

from slimvox.pruning.distillation.loss import Distillation, DistillationLoss, distilled_layers, layer_groups
from slimvox.pruning.distillation.masked_input import HiddenFrames, draw_hidden, hide_frames
from slimvox.pruning.distillation.teacher_forcing import teacher_forcing

__all__ = [
    "Distillation",
    "DistillationLoss",
    "HiddenFrames",
    "distilled_layers",
    "draw_hidden",
    "hide_frames",
    "layer_groups",
    "teacher_forcing",
]
