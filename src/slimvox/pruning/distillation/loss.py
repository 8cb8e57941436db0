"""Distillation loss between the hidden states of student and teacher, from all losses that have a weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from slimvox.encoder import EncoderOutput
from slimvox.losses import ComparedStates, loss, losses
from slimvox.pruning.distillation.masked_input import HiddenFrames


@dataclass(frozen=True, kw_only=True)
class DistillationLoss:
    """The loss and its terms, scalars."""

    total: Tensor
    """Sum of the terms, each times its weight."""
    terms: Mapping[str, Tensor]
    """The unweighted losses by name."""


class Distillation(nn.Module):
    """The weighted sum of the registered losses between chosen states of student and teacher.

    With `maps`, student states are first mapped by linear maps that start as the identity: state 0, the input of the
    Transformer, has a map of its own; the others share one.
    """

    def __init__(
        self,
        width: int,
        layers: Sequence[int],
        *,
        weights: Mapping[str, float] | None = None,
        maps: bool = True,
        group_means: bool = False,
    ) -> None:
        """Prepare a loss with maps that are the identity.

        Args:
            width: width of the states.
            layers: indices of the hidden states to compare, ascending.
            weights: weight of each loss by name; the losses' own weights for those that are not named.
            maps: whether the student's states go through linear maps.
            group_means: whether means over groups of neighbouring states are compared, instead of single ones.

        Raises:
            KeyError: if no loss has the name of a weight.
        """
        super().__init__()
        self.layers = tuple(layers)
        self.groups = layer_groups(self.layers) if group_means else tuple((layer,) for layer in self.layers)
        given = {loss(name).name: weight for name, weight in (weights or {}).items()}
        self.weights = {each.name: given.get(each.name, each.weight) for each in losses()}
        self.first_map = _identity(width) if maps and 0 in self.layers else None
        self.shared_map = _identity(width) if maps and any(self.layers) else None

    def forward(
        self, student: EncoderOutput, teacher: EncoderOutput, hidden: HiddenFrames | None = None
    ) -> DistillationLoss:
        """Compare two outputs for the same batch; frames of padding do not count.

        Args:
            student: the student's output.
            teacher: the teacher's output.
            hidden: frames that the student was not shown. They do not count in the relations, nor in state 0, which has
                no context to predict them from.
        """
        speech = student.frame_mask.float()
        spoken = speech.sum().clamp(min=1)
        shown: Tensor = speech
        pairs: Tensor | float = speech.sum(1).square().sum()
        shown_frames: Tensor | float = spoken
        if hidden is not None:
            # As many as these clips have on average over the step: however it is divided, the parts add up.
            shown = speech * (~hidden.mask).float()
            shown_frames = max(1.0, len(speech) * hidden.shown)
            pairs = max(1.0, len(speech) * hidden.pairs)
        states = ComparedStates(
            mapped=[self._mapped(student.hidden_states, group).float() for group in self.groups],
            targets=[_mean(teacher.hidden_states, group).float() for group in self.groups],
            valid=[(speech if group[-1] else shown).unsqueeze(-1) for group in self.groups],
            frames=[spoken if group[-1] else shown_frames for group in self.groups],
            student=student.hidden_states,
            teacher=teacher.hidden_states,
            layers=self.layers,
            shown=shown,
            pairs=pairs,
        )
        with torch.autocast(speech.device.type, enabled=False):
            terms = {name: loss(name)(states) for name, weight in self.weights.items() if weight}
        weighted = [self.weights[name] * term for name, term in terms.items()]
        total = torch.stack(weighted).sum() if weighted else student.last_hidden_state.sum() * 0.0
        return DistillationLoss(total=total, terms=terms)

    def _mapped(self, states: Sequence[Tensor], group: Sequence[int]) -> Tensor:
        linear = self.shared_map if group[-1] else self.first_map
        mean = _mean(states, group)
        if linear is None:
            return mean
        mapped: Tensor = linear(mean)
        return mapped


def _mean(states: Sequence[Tensor], group: Sequence[int]) -> Tensor:
    if len(group) == 1:
        return states[group[0]]
    return torch.stack([states[index] for index in group]).mean(0)


def _identity(width: int) -> nn.Linear:
    linear = nn.Linear(width, width)
    nn.init.eye_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


def distilled_layers(layers: int, count: int = 4) -> tuple[int, ...]:
    """Indices of the hidden states to compare: evenly spaced, including the first and the last.

    {0, 4, 8, 12} of 12 layers, {0, 8, 16, 24} of 24.
    """
    count = min(count, layers + 1)
    if count == 1:
        return (layers,)
    return tuple(dict.fromkeys(round(index * layers / (count - 1)) for index in range(count)))


def layer_groups(chosen: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Neighbouring hidden states, each group up to a chosen one: {0}, {1 to 4}, {5 to 8}, {9 to 12} for {0, 4, 8, 12}.

    Neighbours in depth are the most similar states; their mean is a target that no single layer has to match alone.
    """
    starts = [chosen[0], *(previous + 1 for previous in chosen)]
    return tuple(tuple(range(start, stop + 1)) for start, stop in zip(starts, chosen, strict=False))
