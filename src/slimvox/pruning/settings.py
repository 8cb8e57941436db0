"""Settings of the parts of a pruning run, one class per section of a recipe."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from slimvox.pruning.budget import RampShape
from slimvox.util.validation import (
    Count,
    CountOrZero,
    Positive,
    PositiveOrZero,
    ProperShare,
    Range,
    Seconds,
    SecondsOrZero,
    Share,
)

ONE_FRAME_SECONDS = 0.025
LONGEST_CLIP_SECONDS = 3600.0
"""Maximum length of the clip that a cost is counted for; the MACs of much longer ones are not exact in float64."""


@dataclass(frozen=True, kw_only=True)
class TargetSettings:
    """Cost limit of the pruned encoder."""

    kind: str = "params"
    """Kind of cost: `params`, `macs`, `latency` (predicted from a table that the run measures on the CPU of its
    machine, or that is given), or another one that is registered."""
    keep: ProperShare = 0.28
    """Share of the dense encoder's cost to keep, between 0 and 1."""
    seconds: Annotated[float, Range(above=0, at_most=LONGEST_CLIP_SECONDS)] = 10.0
    """Clip length in seconds for counting MACs and predicting latency, at most an hour; a target in MACs that is a
    number, not a share, is for 10 s."""
    runtime: str = ""
    """Runtime that latency is measured in: a backend of `slimvox benchmark`, such as openvino-int8; torch if empty."""
    round_to: Count = 1
    """Divisor of the final head widths, feed-forward widths and channels; a width from which nothing is removed stays
    unchanged.
    """
    fast_widths: bool = False
    """Round the final widths to those that processors compute fast: multiples of 8 or 16, one width for all heads of a
    layer, and no thin heads."""


@dataclass(frozen=True, kw_only=True)
class GateSettings:
    """Distribution and training of the gates."""

    straight_through: bool = True
    """Use the straight-through estimator: clipped gates get the gradient of unclipped ones, as in the paper."""
    initial_drop: ProperShare = 0.01
    """Initial drop rate of the gates: log_alpha starts at log((1 - drop) / drop)."""
    initial_drops: dict[str, ProperShare] = field(default_factory=dict)
    """Initial drop of single structures, by name; the others start from `initial_drop`."""
    optimiser: Literal["adam", "sgd"] = "adam"
    """Optimiser of log_alpha: `adam`, or `sgd` without momentum, which needs another `learning_rate`, and for which
    `sparsity_control` must be `lagrangian`."""
    learning_rate: PositiveOrZero = 0.02
    """Learning rate of log_alpha (constant)."""
    sparsity_control: Literal["lagrangian", "projection"] = "lagrangian"
    """Method that keeps the expected sparsity on its schedule: `lagrangian`, a penalty with multipliers trained by
    gradient ascent (the paper), or `projection` of the gates after each step, which has no parameters to tune."""
    multiplier_learning_rate: PositiveOrZero = 0.02
    """Learning rate of the Lagrange multipliers (constant, gradient ascent)."""
    multiplier_optimiser: Literal["adam", "sgd"] = "adam"
    """Optimiser of the multipliers: `adam`, whose steps do not depend on the gap to the target, or `sgd`, whose steps
    are proportional to it (the method of multipliers)."""
    initial_quadratic_multiplier: PositiveOrZero = 0.0
    """Initial value of the multiplier of the squared gap."""
    ramp_steps: CountOrZero = 5000
    """Number of steps in which the target sparsity grows from 0 to its final value."""
    ramp_shape: RampShape = "linear"
    """Shape of the ramp: `linear` removes the same share of the dense cost in each step, `geometric` the same share of
    the remaining cost."""
    final_values: Literal["soft", "one"] = "soft"
    """Value of a surviving gate: `soft`, its typical value, folded into the weights, or `one`."""


@dataclass(frozen=True, kw_only=True)
class DistillationSettings:
    """Distillation targets and loss weights."""

    layers: Count = 4
    """Number of hidden states that are compared, evenly spaced; all if there are fewer."""
    weights: dict[str, PositiveOrZero] = field(default_factory=dict)
    """Weight of each loss, by name: `l1` (mean absolute difference), `cosine` (1 - cosine similarity), `relation`
    (squared difference between Gram matrices over time, of states and between a layer's input and output), or another
    one that is registered."""
    maps: bool = True
    """Apply trainable linear maps, initialised to the identity, to the student's states before they are compared."""
    targets: Literal["layers", "groups"] = "layers"
    """Distillation targets: single hidden states (`layers`), or means over the neighbouring states up to each
    (`groups`)."""
    masked_share: Annotated[float, Range(at_least=0, below=1)] = 0.0
    """Share of frames hidden from the student but not from the teacher, in spans of 0.2 s."""


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Composition of batches."""

    seconds_per_batch: Seconds = 640.0
    """Seconds of audio per optimiser step, over all processes and micro-batches."""
    min_seconds: Annotated[float, Range(at_least=ONE_FRAME_SECONDS)] = 2.0
    """Minimum duration in seconds; shorter files are skipped."""
    max_seconds: Seconds = 15.6
    """Maximum duration in seconds; longer files give random crops of this length."""
    pad_to_seconds: SecondsOrZero = 0.0
    """Length in seconds to which shorter crops are padded with silence, in training and when the distance to the
    teacher is measured; 0 for none. Whisper's decoder was trained on padded clips only."""
    held_out_seconds: SecondsOrZero = 60.0
    """Seconds of audio held out of training for measuring the distance to the teacher (at most a tenth of all
    audio)."""


@dataclass(frozen=True, kw_only=True)
class StageSettings:
    """Optimisation settings of one training stage."""

    steps: CountOrZero
    """Number of optimiser steps."""
    learning_rate: Positive
    """Peak learning rate of the encoder's weights and the distillation maps (AdamW); see also `matrix_optimiser`."""
    warmup_steps: CountOrZero = 0
    """Number of linear warm-up steps; afterwards the learning rate decays linearly to 0. If `steps` is
    overridden by as many or fewer, it is shortened in the same proportion (15,000 of 50,000 becomes 300 of 1,000),
    unless it is overridden too."""
    gradient_clip: Positive = 10.0
    """Maximum gradient norm of the weights."""
    weight_decay: PositiveOrZero = 0.0
    """Decoupled weight decay."""
    matrix_optimiser: Literal["adamw", "muon"] = "adamw"
    """Optimiser of the weight matrices of linear maps: AdamW, as for all other weights, or Muon (Jordan et al. 2024),
    with updates scaled to the size of AdamW's."""
    matrix_rate_factor: Positive = 2.0
    """Learning rate of Muon as a multiple of `learning_rate`."""
    teacher_forcing: Share = 0.0
    """Share of the teacher's states in the input of each student layer at the first step; falls linearly to 0."""
    teacher_forcing_until: Share = 0.5
    """Part of the stage after which teacher forcing ends."""

    def forced(self, step: float) -> float:
        """Share of the teacher's states in the input of each layer, at a step counted from 0."""
        end = self.teacher_forcing_until * self.steps
        return self.teacher_forcing * (1 - step / end) if step < end else 0.0
