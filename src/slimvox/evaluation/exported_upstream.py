"""Exported encoders as a source of features, to measure the effect of int8 on scores."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from slimvox.exporters import ExportFormat
from slimvox.structures.anatomy import SAMPLE_RATE_HZ
from slimvox.util.devices import CPU
from slimvox.util.errors import SlimvoxError

NORMALIZED_LAST = "-normalized-last"
"""Suffix of the fingerprints of pre-norm models, for which caches of older versions have another last state."""


class ExportedUpstream:
    """A file that `slimvox export` wrote, on the CPU.

    The clips of a batch share the activation scales of an int8 file, so clips are encoded one by one.
    """

    def __init__(self, file: Path, format: ExportFormat) -> None:
        """Open a file.

        Raises:
            SlimvoxError: if there is none, it cannot be run, or it returns no hidden states.
        """
        format.require(format.packages_to_run)
        if not file.is_file():
            raise SlimvoxError(f"there is no file {file}")
        self._program = format.open(file, threads=torch.get_num_threads())
        about, names = self._program.metadata, self._program.outputs
        self._states = sorted(name for name in names if name.startswith("hidden_state_"))
        normalized_last = "last_hidden_state" in names
        if normalized_last:
            # It replaces the last of the hidden states, as in `EncoderOutput.downstream_states`.
            self._states = [*self._states[:-1], "last_hidden_state"]
        if "slimvox_version" not in about or not self._states:
            raise SlimvoxError(
                f"{file} returns no hidden states that slimvox knows; export the encoder with slimvox export, or"
                " a model with its head with --layers all"
            )
        self.name = str(file)
        companion = format.companion(file)
        weights = companion.read_bytes() if companion.is_file() else b""
        self.fingerprint = hashlib.sha256(file.read_bytes() + weights).hexdigest()
        if normalized_last and len(self._states) > 1:
            self.fingerprint += NORMALIZED_LAST
        self.frame_rate_hz = int(about["sample_rate_hz"]) / int(about["downsample_rate"])
        self.layers = len(self._states)
        self.width = int(about["width"])
        self.shortest = int(about["shortest_samples"])
        self.parameters = int(about["parameters"])
        self.device = CPU

    def frames(self, samples: int) -> int:
        """Number of frames after convolutions without padding."""
        return max(0, (samples - self.shortest) // round(SAMPLE_RATE_HZ / self.frame_rate_hz) + 1)

    def __call__(self, waveforms: Tensor) -> Tensor:
        """Encode waveforms (batch, samples) of one length to (batch, frames, layers, width)."""
        return torch.cat([self._encode(waveform[None]) for waveform in waveforms])

    def _encode(self, waveform: Tensor) -> Tensor:
        samples = waveform.float().cpu().numpy()
        mask = [np.ones(samples.shape, dtype=bool)] if len(self._program.inputs) > 1 else []
        outputs = dict(zip(self._program.outputs, self._program(samples, *mask), strict=True))
        return torch.stack([torch.from_numpy(outputs[name]) for name in self._states], 2)
