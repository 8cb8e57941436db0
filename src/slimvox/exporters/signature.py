"""Inputs and outputs of an exported program."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from slimvox.structures.anatomy import EncoderAnatomy

Layers = Literal["all", "last", "none"]

WAVEFORMS, ATTENTION_MASK = "waveforms", "attention_mask"
LAST_HIDDEN_STATE, FRAME_MASK = "last_hidden_state", "frame_mask"


@dataclass(frozen=True, kw_only=True)
class Signature:
    """Inputs and outputs of a model's exported program."""

    layers: Layers
    """Hidden states that are returned."""
    mask: bool
    """True if a mask of the samples is an input, and a mask of the frames an output."""
    head: tuple[str, ...] = ()
    """Names of the task head's outputs, if there is one."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs."""
        return (WAVEFORMS, ATTENTION_MASK) if self.mask else (WAVEFORMS,)

    def states(self, anatomy: EncoderAnatomy) -> tuple[str, ...]:
        """Names of the hidden states among the outputs.

        `hidden_state_00` and so on; `last_hidden_state` if it is the only one or not one of those (pre-norm models).
        """
        names: list[str] = []
        if self.layers == "all":
            names += [f"hidden_state_{index:02d}" for index in range(len(anatomy.layers) + 1)]
        if self.layers == "last" or (self.layers == "all" and anatomy.pre_norm):
            names.append(LAST_HIDDEN_STATE)
        return tuple(names)

    def outputs(self, anatomy: EncoderAnatomy) -> tuple[str, ...]:
        """Names of the outputs, in this order: hidden states, the head's outputs, `frame_mask`."""
        return (*self.states(anatomy), *self.head, *((FRAME_MASK,) if self.mask else ()))
