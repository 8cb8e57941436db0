"""The student's hidden states follow the teacher's."""

from slimvox.distillation.layers import distilled_layers, layer_groups
from slimvox.distillation.loss import Distillation, DistillationLoss
from slimvox.distillation.masked_input import hide_frames
from slimvox.distillation.teacher_forcing import teacher_forcing

__all__ = [
    "Distillation",
    "DistillationLoss",
    "distilled_layers",
    "hide_frames",
    "layer_groups",
    "teacher_forcing",
]
