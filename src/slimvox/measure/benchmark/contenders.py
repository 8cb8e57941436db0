"""Contenders of a benchmark: a model and a backend to run it in."""

from __future__ import annotations

import importlib
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

TRANSFORMERS = "transformers"
TORCH_BACKENDS = ("torch", "torch-bf16", TRANSFORMERS)
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


def check_backend(backend: str) -> None:
    """Raise SlimvoxError if there is no such backend, or packages or processor instructions for it are missing."""
    format = backend_format(backend)
    if format is not None:
        format.require((*format.packages_to_write, *format.packages_to_run))
        if backend == format.name + BF16:
            format.check_bf16()


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A model in a backend."""

    model: str
    """Model, as `slimvox.load` takes it; for the backend `transformers`, a dense model."""
    backend: str
    """`torch`: slimvox in float32. `torch-bf16`: the same with weights in bfloat16; on a GPU, under bfloat16 autocast.
    `transformers`: the dense model as `AutoModel` runs it, float32, with all hidden states. Or the name of an export
    format, or that name and `-bf16` or `-int8`: exported, and run as the format does."""
    name: str
    """Short name of the model."""
    file: Path | None = None
    """The exported model, for backends that are export formats."""
    format: ExportFormat | None = None
    """The format of `file`."""

    @property
    def label(self) -> str:
        """Name for tables; no two contenders of a benchmark have the same."""
        return f"{self.name}, {self.backend}"


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
    wait: Callable[[], None] = lambda: None
    """Waits until the device has finished all its work."""


def import_runtime(contender: Contender) -> None:
    """Import the modules that the backend needs, and no others, so that the memory use is realistic."""
    packages = (
        ("torch", "slimvox.checkpoint") if contender.format is None else contender.format.packages_to_run
    )
    for package in (*packages, *[TRANSFORMERS] * (contender.backend == TRANSFORMERS)):
        importlib.import_module(package)


def load_contender(contender: Contender, threads: int, device: str = "cpu") -> Loaded:
    """Load in this process, to be run with a number of CPU threads, or on a device of torch."""
    if contender.format is not None:
        assert contender.file is not None
        return Loaded(
            run=open_file(contender.format, contender.backend, contender.file, threads), module=None
        )
    import torch

    torch.set_num_threads(threads)
    if contender.backend == TRANSFORMERS:
        module = _transformers_model(contender.model)
    else:
        from slimvox.checkpoint import load

        module = load(contender.model)
    return load_module(module, contender.backend, device)


def open_file(format: ExportFormat, backend: str, file: Path, threads: int) -> Run:
    """An exported file in the precision of a backend."""
    opened = format.open_bf16 if backend == format.name + BF16 else format.open
    return opened(file, threads=threads)


def load_module(module: nn.Module, backend: str, device: str = "cpu") -> Loaded:
    """A module of torch, in one of `TORCH_BACKENDS`, moved to the device and changed to the backend's precision.

    This changes the module itself: a second one beside it would count as memory of the backend.
    """
    import torch

    from slimvox.util.timing import wait_for

    keywords: dict[str, Any] = {"output_hidden_states": True} if backend == TRANSFORMERS else {}
    half = backend == "torch-bf16"
    autocast = half and device != "cpu"
    prepare = _window_features(module) if hasattr(module, "config") else None
    place = torch.device(device)
    # On a CPU, casting the weights under autocast would take a large part of the time of a short clip.
    module = module.to(place, torch.bfloat16 if half and not autocast else None)

    def run(waveforms: NDArray[np.float32]) -> object:
        inputs = torch.from_numpy(waveforms) if prepare is None else prepare(waveforms)
        with torch.inference_mode(), torch.autocast(place.type, torch.bfloat16, enabled=autocast):
            return module(inputs.to(place), **keywords)

    return Loaded(run=run, module=module, wait=lambda: wait_for(place))


def noise(batch: int, samples: int) -> NDArray[np.float32]:
    """Waveforms (batch, samples) that contenders are timed on."""
    return np.random.default_rng(0).normal(0, 0.1, (batch, samples)).astype(np.float32)


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
    """A dense model in `transformers`' own class."""
    from transformers import AutoModel

    from slimvox.checkpoint.resolve import find_model

    whole = AutoModel.from_pretrained(find_model(model)).eval()
    return whole.get_encoder() if whole.config.is_encoder_decoder else whole  # type: ignore[no-any-return]
