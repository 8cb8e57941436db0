"""The interface of an export format, and the registry; see `docs/extending/format.md` for how to add one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from slimvox.util.errors import SlimvoxError
from slimvox.util.imports import require
from slimvox.util.registry import Registry

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from slimvox.exporters.reference import Reference

TRACING_TORCH = "torch>=2.12"
"""The oldest torch that exports were tested with. Programs of 2.9 and older do not take every number of samples."""


class Program(ABC):
    """An exported file that has been opened and can be run on the CPU."""

    inputs: Sequence[str]
    """Names of the inputs: `waveforms`, perhaps `attention_mask`."""
    outputs: Sequence[str]
    """Names of the outputs, in their order."""
    metadata: Mapping[str, str]
    """The `metadata` that was given to `ExportFormat.write`."""

    @abstractmethod
    def __call__(self, *inputs: NDArray[Any]) -> Sequence[NDArray[Any]]:
        """All outputs, in their order.

        Args:
            inputs: waveforms (batch, samples) float32, and the mask (batch, samples) bool if the file reads one.
        """


class ExportFormat(ABC):
    """A format in which encoders are exported. An instance has no state: the benchmark sends it to other processes."""

    name: ClassVar[str]
    """Identifier on the command line, and the benchmark's backend."""
    title: ClassVar[str]
    """Name in messages."""
    ending: ClassVar[str]
    """File name extension, with its dot. `slimvox evaluate` recognises files by it."""
    extra: ClassVar[str | None] = None
    """The optional dependencies of slimvox that hold the packages below."""
    packages_to_write: ClassVar[tuple[str, ...]] = ()
    """Modules that must be importable for an export, perhaps with their lowest version: `torch>=2.12`."""
    packages_to_run: ClassVar[tuple[str, ...]] = ()
    """Modules that must be importable to open a file."""
    holds_int8: ClassVar[bool] = False
    """True if `to_int8` is implemented; the benchmark then has a backend `NAME-int8` too."""
    calibrates_int8: ClassVar[bool] = False
    """True if `to_int8` reads clips."""
    runs_bf16: ClassVar[bool] = False
    """True if `open_bf16` is implemented; the benchmark then has a backend `NAME-bf16` too."""
    holds_heads: ClassVar[bool] = True
    """True if a model with its task head can be written."""
    holds_mask: ClassVar[bool] = True
    """True if a file can read an attention mask."""

    @abstractmethod
    def write(
        self, reference: Reference, path: Path, *, metadata: Mapping[str, str], opset: int | None
    ) -> None:
        """Write a model in float32.

        Args:
            reference: the encoder, its task head if there is one, and the inputs and outputs of the file.
            path: the file. Weights that it cannot hold may go to the file `companion(path)` beside it.
            metadata: description of the model; opening the file must give it back.
            opset: version of the format's operators; None for the format's default. Formats without versions ignore it.
        """

    @abstractmethod
    def open(self, path: Path, *, threads: int | None = None) -> Program:
        """Open a file that `write` wrote.

        Args:
            path: the file.
            threads: number of CPU threads; None for the runtime's default.

        Raises:
            SlimvoxError: if the file cannot be run.
        """

    def open_bf16(self, path: Path, *, threads: int | None = None) -> Program:
        """Open a float32 file to be run in bfloat16; implemented if `runs_bf16` is true."""
        raise NotImplementedError

    def check_bf16(self) -> None:
        """Raise SlimvoxError if this processor cannot run files in bfloat16; implemented if `runs_bf16` is true."""
        raise NotImplementedError

    def to_int8(self, path: Path, clips: Sequence[NDArray[np.float32]] = ()) -> None:
        """Quantise a file in place; implemented if `holds_int8` is true.

        Args:
            path: the file.
            clips: waveforms (samples,) for the scales of the activations, if `calibrates_int8` is true; else none.
        """
        raise NotImplementedError

    def companion(self, path: Path) -> Path:
        """Path of the file beside `path` for weights that `path` itself cannot hold."""
        return path.with_name(f"{path.name}.data")

    def opsets(self) -> range:
        """Versions of the format's operators that can hold a model; empty where there are no versions."""
        return range(0)

    def check_opset(self, opset: int | None) -> None:
        """Raise SlimvoxError if a version of the format's operators is not one of `opsets`."""
        able = self.opsets()
        if opset is not None and able and opset not in able:
            raise SlimvoxError(
                f"`opset` must be from {able[0]} (older ones cannot hold the model) to {able[-1]} (the newest that is"
                f" known here), but is {opset} instead"
            )

    def require(self, packages: Sequence[str]) -> None:
        """Raise SlimvoxError if one of `packages_to_write` or `packages_to_run` is missing or too old."""
        require(packages, self.title, extra=self.extra)

    def check_holds(self, *, int8: bool, heads: bool, mask: bool) -> None:
        """Raise SlimvoxError if something was requested that the format cannot hold."""
        for option, asked in (("int8", int8), ("heads", heads), ("mask", mask)):
            if asked and not getattr(self, f"holds_{option}"):
                able = [each.name for each in export_formats() if getattr(each, f"holds_{option}")]
                raise SlimvoxError(f"{option} is for --format {' or '.join(able)} only")


_FORMATS: Registry[ExportFormat] = Registry("format", unique=("ending",))
register_format = _FORMATS.register
unregister_format = _FORMATS.unregister
export_format = _FORMATS.find
export_formats = _FORMATS.all
export_format_names = _FORMATS.names


def format_of_file(path: str | Path) -> ExportFormat | None:
    """The registered format with the ending of a file; None if there is none."""
    return next((each for each in export_formats() if str(path).endswith(each.ending)), None)
