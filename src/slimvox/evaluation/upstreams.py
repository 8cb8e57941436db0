"""Sources of hidden states: encoders, exported files and the filter-bank baseline."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor

from slimvox.checkpoint import load
from slimvox.encoder import SpeechEncoder
from slimvox.encoder.weights import untrained_encoder, weights_hash
from slimvox.evaluation import filter_bank
from slimvox.evaluation.exported_upstream import NORMALIZED_LAST, ExportedUpstream
from slimvox.exporters import format_of_file
from slimvox.structures.anatomy import SAMPLE_RATE_HZ
from slimvox.util.devices import CPU, find_device
from slimvox.util.errors import SlimvoxError

Precision = Literal["float32", "bf16"]

FILTER_BANK = "fbank"
RANDOM_PREFIX = "random:"


class Upstream(Protocol):
    """A frozen source of features."""

    @property
    def name(self) -> str:
        """Name of the model, as given by the user."""

    @property
    def fingerprint(self) -> str:
        """Hash of weights and shapes; different fingerprints mean different features."""

    @property
    def frame_rate_hz(self) -> float:
        """Number of frames per second."""

    @property
    def layers(self) -> int:
        """Number of hidden states per frame."""

    @property
    def width(self) -> int:
        """Number of dimensions of each hidden state."""

    @property
    def shortest(self) -> int:
        """Minimum number of samples, enough for one frame."""

    @property
    def parameters(self) -> int:
        """Number of parameters."""

    @property
    def device(self) -> torch.device:
        """Device on which it computes."""

    def frames(self, samples: int) -> int:
        """Number of frames of a waveform; 0 if it is too short."""

    def __call__(self, waveforms: Tensor) -> Tensor:
        """Encode waveforms (batch, samples) of one length to (batch, frames, layers, width) on `device`."""


@dataclass(frozen=True, kw_only=True)
class FilterBankUpstream:
    """The filter-bank baseline `fbank`."""

    name: str = FILTER_BANK
    frame_rate_hz: float = filter_bank.FRAME_RATE_HZ
    layers: int = 1
    width: int = filter_bank.WIDTH
    shortest: int = filter_bank.WINDOW_SAMPLES
    parameters: int = 0
    fingerprint: str = "fbank-80-deltas-100Hz-1"
    device: torch.device = CPU

    def frames(self, samples: int) -> int:
        """Number of windows that fit."""
        return max(0, (samples - filter_bank.WINDOW_SAMPLES) // filter_bank.HOP_SAMPLES + 1)

    def __call__(self, waveforms: Tensor) -> Tensor:
        """Encode."""
        return torch.stack([filter_bank.filter_bank(waveform) for waveform in waveforms]).unsqueeze(2)


class EncoderUpstream:
    """A speech encoder; clips never share a batch with longer ones, so that padding changes nothing."""

    def __init__(
        self, encoder: SpeechEncoder, name: str, *, device: str = "cpu", precision: Precision = "float32"
    ) -> None:
        self.device = find_device(device)
        self.bf16 = precision == "bf16"
        self.fingerprint = weights_hash(encoder) + (NORMALIZED_LAST if encoder.anatomy.pre_norm else "")
        self.fingerprint += "-bf16" if self.bf16 else ""
        self.encoder = encoder.eval().requires_grad_(False).to(self.device)
        self.name = name
        self.layers = len(encoder.layers) + 1
        self.width = encoder.anatomy.width
        self.shortest = encoder.anatomy.receptive_field
        self.frame_rate_hz = SAMPLE_RATE_HZ / encoder.anatomy.hop
        self.parameters = encoder.parameter_count

    def frames(self, samples: int) -> int:
        """Number of frames of the front end."""
        return self.encoder.anatomy.frames(samples)

    @torch.inference_mode()
    def __call__(self, waveforms: Tensor) -> Tensor:
        """Encode."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            states = self.encoder(waveforms.to(self.device)).downstream_states
        return torch.stack([state.float() for state in states], 2)


def load_upstream(
    model: str | Path, *, device: str = "cpu", precision: Precision = "float32", seed: int = 0
) -> Upstream:
    """Load a model to evaluate.

    Args:
        model: `fbank`; `random:MODEL` for random weights in the shape of MODEL; a file that `slimvox export` wrote,
            of any registered format; or any argument of `slimvox.load`.
        device: device of the encoder.
        precision: `bf16` for autocast of an encoder; exported files and `fbank` have their own precision.
        seed: random seed for the weights of `random:MODEL`.

    Raises:
        SlimvoxError: if there is no such model.
    """
    name = str(model)
    if name == FILTER_BANK:
        return FilterBankUpstream()
    if name == "random":
        raise SlimvoxError("`random` needs a model whose shape to use, such as random:embedded")
    if name.startswith(RANDOM_PREFIX):
        anatomy = load(name.removeprefix(RANDOM_PREFIX)).anatomy
        return EncoderUpstream(
            untrained_encoder(anatomy, seed=seed), name, device=device, precision=precision
        )
    format = format_of_file(name)
    if format is not None and not Path(name).expanduser().is_dir():
        return ExportedUpstream(Path(name).expanduser(), format)
    return EncoderUpstream(load(model), name, device=device, precision=precision)
