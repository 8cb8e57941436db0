"""What goes into an exported program and what comes out."""

from __future__ import annotations

from dataclasses import dataclass

from slimvox.anatomy import EncoderAnatomy

WAVEFORMS, ATTENTION_MASK = "waveforms", "attention_mask"
LAST_HIDDEN_STATE, FRAME_MASK = "last_hidden_state", "frame_mask"


@dataclass(frozen=True, kw_only=True)
class Signature:
    """Of an encoder's exported program."""

    last_only: bool
    """Whether only the last hidden state is returned."""
    mask: bool
    """Whether a mask of the samples is read, and one of the frames returned."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of what it reads."""
        return (WAVEFORMS, ATTENTION_MASK) if self.mask else (WAVEFORMS,)

    def outputs(self, anatomy: EncoderAnatomy) -> tuple[str, ...]:
        """Names of what it returns, in this order.

        `hidden_state_00` and so on; `last_hidden_state` where it is alone or none of those (pre-norm models);
        `frame_mask`.
        """
        names: list[str] = []
        if not self.last_only:
            names += [f"hidden_state_{index:02d}" for index in range(len(anatomy.layers) + 1)]
        if self.last_only or anatomy.pre_norm:
            names.append(LAST_HIDDEN_STATE)
        if self.mask:
            names.append(FRAME_MASK)
        return tuple(names)
