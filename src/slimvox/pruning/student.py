"""The student: everything that is trained in a stage, in one module so that it can be wrapped for many processes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from slimvox.encoder import EncoderOutput, SpeechEncoder
from slimvox.pruning.budget import Budget, ExpectedSparsity, Lagrangian
from slimvox.pruning.distillation import (
    Distillation,
    HiddenFrames,
    draw_hidden,
    hide_frames,
    teacher_forcing,
)
from slimvox.pruning.gates import Gates
from slimvox.pruning.masks import masked_forward
from slimvox.pruning.recomputation import recomputation


@dataclass(frozen=True, kw_only=True)
class StepNoise:
    """Random numbers of a step.

    The gates are sampled once per step, not per micro-batch or process, on purpose: a step is then the same function of
    seed and step number regardless of how its audio is divided.
    """

    gates: Tensor | None
    """Noise of the gates, (gates,); None without gates."""
    hidden: HiddenFrames | None
    """Frames that are hidden from the student; None if all are shown."""

    def part(self, clips: Sequence[int], device: torch.device) -> StepNoise:
        """The noise of some clips of the step, given by their indices."""
        return replace(self, hidden=None if self.hidden is None else self.hidden.part(clips, device))


class Student(nn.Module):
    """An encoder with its distillation maps and, in stage 1, gates and possibly multipliers.

    Stage 1: L = L_distil + lambda1 (s - t) + lambda2 (s - t)^2, with masks sampled anew in each step; without the
    penalty if the gates are kept on target by projection (`slimvox.pruning.gates.project`). Stage 2: L = L_distil.
    """

    def __init__(
        self,
        encoder: SpeechEncoder,
        distillation: Distillation,
        *,
        gates: Gates | None = None,
        budget: Budget | None = None,
        lagrangian: Lagrangian | None = None,
        masked_share: float = 0.0,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.distillation = distillation
        self.gates = gates
        self.budget = budget
        self._sparsity = None if budget is None else ExpectedSparsity(budget, encoder.anatomy)
        self.masked_share = masked_share
        self.lagrangian = lagrangian

    def weights(self) -> list[nn.Parameter]:
        """Parameters trained at the stage's learning rate: those of the encoder and the maps."""
        return [*self.encoder.parameters(), *self.distillation.parameters()]

    def expected_sparsity(self) -> Tensor:
        """Expected sparsity s in stage 1: the share of the dense cost that surgery would remove, differentiable."""
        assert self.gates is not None and self._sparsity is not None
        return self._sparsity(self.gates.expected_counts())

    def draw_noise(
        self,
        clips: int,
        frames: int,
        generator: torch.Generator | None = None,
        present: Sequence[int] | None = None,
    ) -> StepNoise:
        """Draw the random numbers of a step.

        Args:
            clips: number of clips of the step, over all micro-batches and processes.
            frames: number of frames of each clip.
            generator: a CPU generator.
            present: indices of the clips that take part; all if not given.
        """
        gates = None if self.gates is None else self.gates.draw(generator)
        hidden = None
        if self.masked_share:
            hidden = HiddenFrames.of(draw_hidden((clips, frames), self.masked_share, generator), present)
        return StepNoise(gates=gates, hidden=hidden)

    def forward(
        self,
        waveforms: Tensor,
        teacher: EncoderOutput,
        *,
        noise: StepNoise,
        target_sparsity: float = 0.0,
        forced: float = 0.0,
        recompute: bool = False,
    ) -> dict[str, Tensor]:
        """The loss and its parts, scalars by name.

        Args:
            waveforms: (batch, samples).
            teacher: the teacher's output for them.
            noise: output of `draw_noise`, for these clips.
            target_sparsity: target sparsity t, in stage 1.
            forced: share of the teacher in the input of each layer, see `teacher_forcing`.
            recompute: keep only the inputs of front end and layers for the backward pass, which computes the rest again
                (activation checkpointing).

        Returns:
            `loss` to be minimised; `distillation` and, by name, its terms that have a weight; with multipliers also
            `sparsity` (expected) and `penalty`.
        """
        hidden = noise.hidden
        with (
            teacher_forcing(self.encoder, teacher.hidden_states, forced),
            hide_frames(self.encoder, None if hidden is None else hidden.mask),
            recomputation(self.encoder, recompute),
        ):
            if self.gates is None:
                output = self.encoder(waveforms)
            else:
                assert noise.gates is not None
                output = masked_forward(self.encoder, self.gates.masks(noise.gates), waveforms)
        compared = self.distillation(output, teacher, hidden)
        losses = {"loss": compared.total, "distillation": compared.total, **compared.terms}
        if self.lagrangian is not None:
            sparsity = self.expected_sparsity()
            penalty = self.lagrangian(sparsity, target_sparsity)
            losses.update(loss=compared.total + penalty, sparsity=sparsity, penalty=penalty)
        return losses
