"""Exported encoders as a source of features: what int8 costs in scores, not in distances."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from slimvox.util.errors import SlimvoxError, first_line

NORMALIZED_LAST = "-normalized-last"
"""Ends the fingerprints of pre-norm models, whose features in a cache of an older version have another last state."""


class OnnxUpstream:
    """A file that `slimvox export` wrote, in onnxruntime on the CPU.

    The clips of a batch share the activation scales of an int8 file, so clips are encoded one by one.
    """

    def __init__(self, file: Path) -> None:
        """Open a file.

        Raises:
            SlimvoxError: if there is none, it cannot be run, or it returns no hidden states.
        """
        if importlib.util.find_spec("onnxruntime") is None:
            raise SlimvoxError('evaluating an ONNX file needs onnxruntime: pip install "slimvox[onnx]"')
        import onnxruntime

        if not file.is_file():
            raise SlimvoxError(f"there is no file {file}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        try:
            self._session = onnxruntime.InferenceSession(
                str(file), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime has exceptions of its own for each kind of damage
            raise SlimvoxError(f"onnxruntime cannot read {file}: {first_line(error)}") from error
        about = self._session.get_modelmeta().custom_metadata_map
        names = [output.name for output in self._session.get_outputs()]
        self._states = sorted(name for name in names if name.startswith("hidden_state_"))
        normalized_last = "last_hidden_state" in names
        if (
            normalized_last
        ):  # alone, or beside those of a pre-norm model: as in `EncoderOutput.downstream_states`
            self._states = [*self._states[:-1], "last_hidden_state"]
        if "slimvox_version" not in about or not self._states:
            raise SlimvoxError(
                f"{file} returns no hidden states that slimvox knows; export the encoder with slimvox export, or"
                " a model with its head with --layers all"
            )
        self._takes_mask = len(self._session.get_inputs()) > 1
        self.name = str(file)
        self.fingerprint = hashlib.sha256(file.read_bytes()).hexdigest()
        if normalized_last and len(self._states) > 1:
            self.fingerprint += NORMALIZED_LAST
        self.frame_rate_hz = int(about["sample_rate_hz"]) / int(about["downsample_rate"])
        self.layers = len(self._states)
        self.width = int(about["width"])
        self.shortest = int(about["shortest_samples"])
        self.parameters = int(about["parameters"])

    def __call__(self, waveforms: Tensor) -> Tensor:
        """Encode waveforms (batch, samples) of one length to (batch, frames, layers, width)."""
        return torch.cat([self._encode(waveform[None]) for waveform in waveforms])

    def _encode(self, waveform: Tensor) -> Tensor:
        samples = waveform.float().cpu().numpy()
        inputs = [samples, np.ones(samples.shape, dtype=bool)] if self._takes_mask else [samples]
        named = {given.name: value for given, value in zip(self._session.get_inputs(), inputs, strict=True)}
        states = self._session.run(self._states, named)
        return torch.stack([torch.from_numpy(state) for state in states], 2)
