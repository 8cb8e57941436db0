"""The student: what is trained in either stage, in one module so that it can be wrapped for many processes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from slimvox.encoder import EncoderOutput, SpeechEncoder
from slimvox.pruning.budget import Budget, ExpectedSparsity, Lagrangian
from slimvox.pruning.distillation import Distillation, hide_frames, teacher_forcing
from slimvox.pruning.gates import Gates
from slimvox.pruning.masks import masked_forward


class Student(nn.Module):
    """An encoder with its distillation maps and, in stage 1, gates and, for some, multipliers.

    Stage 1: L = L_distil + lambda1 (s - t) + lambda2 (s - t)^2, with masks sampled anew in each step; without the
    penalty where the gates are kept on target by projection (`slimvox.pruning.gates.project`).
    Stage 2: L = L_distil.
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
        """s, in stage 1: the share of the dense cost that surgery would take on average, differentiable."""
        assert self.gates is not None and self._sparsity is not None
        return self._sparsity(self.gates.expected_counts())

    def forward(
        self,
        waveforms: Tensor,
        teacher: EncoderOutput,
        *,
        target_sparsity: float = 0.0,
        forced: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> dict[str, Tensor]:
        """The loss and its parts, scalars by name.

        Args:
            waveforms: (batch, samples).
            teacher: the teacher's output for them.
            target_sparsity: t, in stage 1.
            forced: share of the teacher in what each layer starts from, see `teacher_forcing`.
            generator: a CPU generator, for the gates (stage 1) and the frames that are hidden.

        Returns:
            `loss` to be minimised; `distillation` and, by name, its terms that have a weight; with multipliers also
            `sparsity` (expected) and `penalty`.
        """
        masks = None if self.gates is None else self.gates.sample(generator)
        with (
            teacher_forcing(self.encoder, teacher.hidden_states, forced),
            hide_frames(self.encoder, self.masked_share, generator) as hidden,
        ):
            if masks is None:
                output = self.encoder(waveforms)
            else:
                output = masked_forward(self.encoder, masks, waveforms)
        compared = self.distillation(output, teacher, hidden[0] if hidden else None)
        losses = {"loss": compared.total, "distillation": compared.total, **compared.terms}
        if self.lagrangian is not None:
            sparsity = self.expected_sparsity()
            penalty = self.lagrangian(sparsity, target_sparsity)
            losses.update(loss=compared.total + penalty, sparsity=sparsity, penalty=penalty)
        return losses
