"""Reference outputs of an exported program: those of the model in torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray

from slimvox.encoder import SpeechEncoder
from slimvox.exporters.signature import Signature

if TYPE_CHECKING:
    from slimvox.hf.heads import SlimvoxWithHead


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Computes `Signature.outputs` with torch."""

    encoder: SpeechEncoder
    head: SlimvoxWithHead | None
    """A model with a task head and the same encoder; None without a head."""
    signature: Signature

    @property
    def shortest_samples(self) -> int:
        """Minimum length of a clip in samples."""
        anatomy = self.encoder.anatomy
        frames = 1 if self.head is None else self.head.fewest_frames
        return anatomy.receptive_field + (frames - 1) * anatomy.hop

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return self.signature.outputs(self.encoder.anatomy)

    def described(self, metadata: Mapping[str, str]) -> dict[str, str]:
        """Metadata with the names of inputs and outputs, for formats that keep no names, or not all of them."""
        return {
            **metadata,
            "inputs": json.dumps(self.signature.inputs),
            "outputs": json.dumps(self.outputs),
        }

    def __call__(self, waveforms: NDArray[Any], mask: NDArray[Any] | None) -> dict[str, NDArray[Any]]:
        """All outputs by name; `mask` is used only where the signature has one."""
        given = torch.from_numpy(waveforms)
        attention_mask = torch.from_numpy(mask) if self.signature.mask and mask is not None else None
        with torch.inference_mode():
            output = self.encoder(given, attention_mask)
            found = {f"hidden_state_{index:02d}": state for index, state in enumerate(output.hidden_states)}
            found |= {"last_hidden_state": output.last_hidden_state, "frame_mask": output.frame_mask}
            if self.head is not None:
                tasks = self.head(given, attention_mask)
                found |= {name: tasks[name] for name in self.signature.head}
        return {name: found[name].numpy() for name in self.outputs}
