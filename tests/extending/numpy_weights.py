"""An export format that is not part of slimvox: weights as NumPy arrays. docs/extending/format.md explains it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from slimvox.encoder import SpeechEncoder
from slimvox.exporters import ExportFormat, Program
from slimvox.exporters.reference import Reference
from slimvox.structures.anatomy import EncoderAnatomy


class NumpyWeights(ExportFormat):
    """An encoder's weights as arrays, with its anatomy beside them."""

    name = "npz"
    title = "NumPy"
    ending = ".npz"
    packages_to_run = ("numpy",)
    holds_heads = False
    holds_mask = False

    def write(
        self, reference: Reference, path: Path, *, metadata: Mapping[str, str], opset: int | None
    ) -> None:
        """Save the weights, and everything else as JSON."""
        encoder = reference.encoder
        about = {
            "anatomy": encoder.anatomy.to_dict(),
            "dense": encoder.dense_anatomy.to_dict(),
            "outputs": reference.outputs,
            "metadata": dict(metadata),
        }
        weights = {name: tensor.numpy() for name, tensor in encoder.state_dict().items()}
        with path.open("wb") as file:
            np.savez(file, about=np.array(json.dumps(about)), **weights)

    def open(self, path: Path, *, threads: int | None = None) -> Program:
        """Build the encoder again."""
        return NumpyProgram(path)


class NumpyProgram(Program):
    """Runs the weights of a file."""

    inputs = ("waveforms",)

    def __init__(self, path: Path) -> None:
        with np.load(path) as arrays:
            about = json.loads(str(arrays["about"]))
            weights = {name: torch.from_numpy(arrays[name]) for name in arrays.files if name != "about"}
        anatomy, dense = (EncoderAnatomy.from_dict(about[key]) for key in ("anatomy", "dense"))
        self.encoder = SpeechEncoder(anatomy, dense).eval()
        self.encoder.load_state_dict(weights)
        self.outputs: tuple[str, ...] = tuple(about["outputs"])
        self.metadata: dict[str, str] = about["metadata"]

    def __call__(self, *inputs: NDArray[Any]) -> Sequence[NDArray[Any]]:
        """All outputs, in their order."""
        with torch.no_grad():
            output = self.encoder(torch.from_numpy(inputs[0]))
        states = {f"hidden_state_{index:02d}": state for index, state in enumerate(output.hidden_states)}
        states["last_hidden_state"] = output.last_hidden_state
        return [states[name].numpy() for name in self.outputs]
