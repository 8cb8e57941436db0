"""Contenders of a benchmark: a model and a backend to run it in."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from slimvox.exporters import ExportFormat, export_formats
from slimvox.util.errors import SlimvoxError

if TYPE_CHECKING:
    from torch import Tensor, nn

TORCH_BACKENDS = ("torch", "torch-bf16", "transformers")
"""Backends that run a model in torch, without an export."""
INT8, BF16 = "-int8", "-bf16"

Run = Callable[[NDArray[np.float32]], object]
"""Encodes waveforms (batch, samples) float32."""


def backend_names() -> tuple[str, ...]:
    """Backends that a model can be run in: those of torch, and each export format in the precisions that it has."""
    return (*TORCH_BACKENDS, *(name for each in export_formats() for name in _backends(each)))


def _backends(format: ExportFormat) -> list[str]:
    endings = ["", *[BF16] * format.runs_bf16, *[INT8] * format.holds_int8]
    return [format.name + ending for ending in endings]


def backend_format(backend: str) -> ExportFormat | None:
    """The export format of a backend; None for those of torch.

    Raises:
        SlimvoxError: if there is no such backend.
    """
    if backend not in backend_names():
        raise SlimvoxError(
            f"`backends` must be some of {', '.join(backend_names())}, but has {backend!r} instead"
        )
    return next((each for each in export_formats() if backend in _backends(each)), None)


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A model in a backend."""

    model: str
    """Model, as `slimvox.load` takes it; for the backend `transformers`, its dense model is run."""
    backend: str
    """`torch`: slimvox in float32. `torch-bf16`: the same under bfloat16 autocast. `transformers`: the dense model as
    `AutoModel` runs it, float32, with all hidden states. Or the name of an export format, or that name and `-bf16` or
    `-int8`: exported, and run as the format does."""
    name: str
    """Short name of the model."""
    file: Path | None = None
    """The exported model, for backends that are export formats."""
    format: ExportFormat | None = None
    """The format of `file`."""

    @property
    def label(self) -> str:
        """Name for tables; no two contenders of a benchmark have the same."""
        model = f"{self.name} dense" if self.backend == "transformers" else self.name
        return f"{model}, {self.backend}"


def short_names(models: Iterable[str]) -> dict[str, str]:
    """The last part of each path or id, or all of it if two would have the same name."""
    last = {model: Path(model).name or model for model in models}
    return {model: name if list(last.values()).count(name) == 1 else model for model, name in last.items()}


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A contender ready to run."""

    run: Run
    module: nn.Module | None
    """Module whose blocks can be timed; None if the backend has none."""


def load_contender(contender: Contender, threads: int) -> Loaded:
    """Load in this process; only the modules that the backend needs are imported, so that memory use is realistic."""
    if contender.format is not None:
        assert contender.file is not None
        bf16 = contender.backend == contender.format.name + BF16
        opened = contender.format.open_bf16 if bf16 else contender.format.open
        return Loaded(run=opened(contender.file, threads=threads), module=None)
    import torch

    torch.set_num_threads(threads)
    module = _transformers_model(contender.model) if contender.backend == "transformers" else None
    if module is None:
        from slimvox.checkpoint import load

        module = load(contender.model)
    keywords: dict[str, Any] = {"output_hidden_states": True} if contender.backend == "transformers" else {}
    half = contender.backend == "torch-bf16"
    prepare = _window_features(module) if hasattr(module, "config") else None

    def run(waveforms: NDArray[np.float32]) -> object:
        inputs = torch.from_numpy(waveforms) if prepare is None else prepare(waveforms)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            return module(inputs, **keywords)

    return Loaded(run=run, module=module)


def _window_features(module: nn.Module) -> Callable[[NDArray[np.float32]], Tensor] | None:
    """The log-mel spectrogram of a whole window, for models of `transformers` that take one (Whisper); else None.

    It is part of what is timed, as slimvox's encoder computes it too. `transformers` has no shorter form: a clip is
    padded to the window.
    """
    config: Any = module.config
    if not hasattr(config, "max_source_positions"):
        return None
    from transformers import WhisperFeatureExtractor

    from slimvox.structures.anatomy import SAMPLE_RATE_HZ

    seconds = 2 * config.max_source_positions // 100
    extract = WhisperFeatureExtractor(feature_size=config.num_mel_bins, chunk_length=seconds)

    def prepare(waveforms: NDArray[np.float32]) -> Tensor:
        found = extract(list(waveforms), sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt")
        features: Tensor = found["input_features"]
        return features

    return prepare


def _transformers_model(model: str) -> nn.Module:
    """The dense model in `transformers`' own class; with random weights if only a pruned encoder exists.

    Speed does not depend on the weights.
    """
    from transformers import AutoModel

    from slimvox.checkpoint.directory import is_slimvox_directory
    from slimvox.checkpoint.resolve import find_anatomies, find_model
    from slimvox.checkpoint.transformers_config import transformers_config

    directory = find_model(model)
    if is_slimvox_directory(directory):
        _, dense = find_anatomies(model)
        whole = AutoModel.from_config(transformers_config(dense)).eval()
    else:
        whole = AutoModel.from_pretrained(directory).eval()
    return whole.get_encoder() if whole.config.is_encoder_decoder else whole  # type: ignore[no-any-return]
