"""Export, and compare what came out with what went in before it is handed over."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from slimvox.checkpoint.resolve import LoadedModel, load_model
from slimvox.encoder import SpeechEncoder
from slimvox.errors import SlimvoxError
from slimvox.export.comparison import Program, compare, relative_errors
from slimvox.export.metadata import metadata
from slimvox.export.onnx_file import DEFAULT_OPSET, OnnxSession, check_opset, require_onnx, write_onnx
from slimvox.export.signature import Signature
from slimvox.export.staging import check_target, companion_file, move_into_place, staging_directory

Format = Literal["onnx", "torch-export"]
Layers = Literal["all", "last"]

TOLERANCE = 1e-3
"""Largest difference from the encoder, as a share of the largest value of a hidden state, in float32."""
DEFAULT_MAX_ERROR = 0.1
"""Of int8: the mean over the hidden states of their relative error on the embedded test audio."""
ERROR_CLIPS, ERROR_SECONDS = 8, 10.0
"""Of the embedded test audio, for the error of int8."""


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """A file that was written, and how far it is from the encoder."""

    path: Path
    """The file."""
    bytes: int
    """Its size (of a model over 2 GB: with its `.data` file)."""
    inputs: tuple[str, ...]
    """Names of what it reads: `waveforms`, perhaps `attention_mask`."""
    outputs: tuple[str, ...]
    """Names of what it returns, in their order."""
    worst_difference: float
    """Of float32 from torch on noise, as a share of the largest value of the hidden state: arithmetic alone."""
    compared: tuple[tuple[int, int], ...]
    """Batch sizes and lengths in samples that this was measured on."""
    relative_errors: tuple[float, ...] | None
    """int8 only: for each hidden state, ||int8 - float32|| / ||float32|| on the embedded test audio."""

    @property
    def mean_relative_error(self) -> float | None:
        """int8 only: what `max_error` is a limit of."""
        return None if self.relative_errors is None else float(np.mean(self.relative_errors))


def export_encoder(
    model: str | Path,
    out: str | Path | None = None,
    *,
    format: Format = "onnx",
    int8: bool = False,
    layers: Layers = "all",
    mask: bool = False,
    opset: int = DEFAULT_OPSET,
    max_error: float = DEFAULT_MAX_ERROR,
    force: bool = False,
    report: Callable[[str], None] = lambda message: None,
) -> ExportResult:
    """Write an encoder as a file that runs without slimvox.

    It reads `waveforms`, (batch, samples) float32 at 16 kHz, of any batch size and any length from one frame (400
    samples) on, and returns `hidden_state_00` and so on, each (batch, frames, width). Waveforms are normalised
    inside, where the model wants that.

    Args:
        model: `embedded`, a local directory, or a model id on the Hugging Face hub.
        out: the file; by default `encoder.onnx`, `encoder-int8.onnx` or `encoder.pt2` in the model's directory, or
            `NAME.onnx` and so on in the current one if the model is not a local directory.
        format: `onnx`; or `torch-export`, a `torch.export` program (.pt2) for AOTInductor, ExecuTorch or torch itself.
        int8: quantise matrix products (ONNX only). The convolutions of the front end are among them, except the
            first; the positional convolution is not. The file is 4 times smaller. It is fast on processors with
            8-bit dot products (x86: VNNI; Arm: dotprod).
        layers: `all` hidden states, or only the `last`, as `last_hidden_state`.
        mask: also read `attention_mask`, (batch, samples) bool, False for padding, and return `frame_mask`, (batch,
            frames) bool, as the last output.
        opset: version of ONNX's operators.
        max_error: the largest mean relative error of int8 on the embedded test audio that is let through.
        force: replace a file that is there, and let a larger error through.
        report: is told what is being done.

    Raises:
        SlimvoxError: if the model can't be read, packages are missing, the file can't be written, or is too far from
            the encoder. Nothing is left behind then, and a file that was there is left as it was.
    """
    _check_choices(format, layers, int8=int8)
    if format == "onnx":
        require_onnx()
        check_opset(opset)
    if not max_error > 0:
        raise SlimvoxError(f"`max_error` must be more than 0, but is {max_error} instead")
    loaded = load_model(model)
    target = _target(loaded, out, format=format, int8=int8)
    check_target(target, force=force)
    encoder, signature = loaded.encoder, Signature(last_only=layers == "last", mask=mask)
    about = metadata(loaded, layers=layers, int8=int8)
    with staging_directory(target) as staging:
        staged = staging / target.name
        report("tracing the encoder")
        if format == "onnx":
            program = _to_onnx(encoder, signature, staged, opset=opset, about=about)
        else:
            program = _to_torch_export(encoder, signature, staged, about)
        report("comparing with torch")
        comparison = compare(program, encoder, signature)
        if not comparison.worst_difference <= TOLERANCE:
            raise SlimvoxError(
                f"the exported model differs from torch by {comparison.worst_difference:.1e} of a hidden state's"
                f" largest value, more than {TOLERANCE:.0e}; the file was removed: please report this as a bug"
            )
        errors: tuple[float, ...] | None = None
        if int8:
            report("quantising, and measuring the error")
            errors = _to_int8(encoder, signature, staged)
            _check_error(errors, max_error, force=force)
        size = sum(file.stat().st_size for file in (staged, companion_file(staged)) if file.exists())
        move_into_place(staged, target)
    return ExportResult(
        path=target,
        bytes=size,
        inputs=signature.inputs,
        outputs=signature.outputs(encoder.anatomy),
        worst_difference=comparison.worst_difference,
        compared=comparison.inputs,
        relative_errors=errors,
    )


def _check_choices(format: str, layers: str, *, int8: bool) -> None:
    for name, value, choices in (("format", format, get_args(Format)), ("layers", layers, get_args(Layers))):
        if value not in choices:
            raise SlimvoxError(f"`{name}` must be {' or '.join(choices)}, but is {value!r} instead")
    if int8 and format != "onnx":
        raise SlimvoxError("int8 is for --format onnx only")


def _target(model: LoadedModel, out: str | Path | None, *, format: Format, int8: bool) -> Path:
    """Where to write."""
    if out is not None:
        return Path(out).expanduser()
    ending = "-int8.onnx" if int8 else ".onnx" if format == "onnx" else ".pt2"
    local = Path(model.name).expanduser()
    if local.is_dir():
        return local / f"encoder{ending}"
    return Path(f"{model.name.rpartition('/')[2]}{ending}")


def _to_onnx(
    encoder: SpeechEncoder, signature: Signature, path: Path, *, opset: int, about: Mapping[str, str]
) -> Program:
    from slimvox.export.trace import trace

    program = trace(encoder, signature, taps_in_file=True)
    outputs = signature.outputs(encoder.anatomy)
    write_onnx(program, path, inputs=signature.inputs, outputs=outputs, opset=opset, metadata=about)
    return OnnxSession(path)


def _to_torch_export(
    encoder: SpeechEncoder, signature: Signature, path: Path, about: Mapping[str, str]
) -> Program:
    from slimvox.export.torch_program import TorchProgram, write_torch_program
    from slimvox.export.trace import trace

    write_torch_program(trace(encoder, signature, taps_in_file=False), path, about)
    return TorchProgram(path)


def _to_int8(encoder: SpeechEncoder, signature: Signature, path: Path) -> tuple[float, ...]:
    """Put an int8 version in the place of a float32 one; its relative errors."""
    from slimvox.audio import read_audio
    from slimvox.embedded import audio_files
    from slimvox.export.quantise import quantise

    if companion_file(path).exists():
        raise SlimvoxError("a model over 2 GB can't be quantised; prune it first, or leave int8 out")
    quantise(path, path)
    files = audio_files("test")
    clips = [read_audio(file, seconds=ERROR_SECONDS) for file in files[:: max(1, len(files) // ERROR_CLIPS)]]
    return relative_errors(OnnxSession(path), encoder, signature, clips[:ERROR_CLIPS])


def _check_error(errors: tuple[float, ...], max_error: float, *, force: bool) -> None:
    error = float(np.mean(errors))
    if not error <= max_error and not force:
        raise SlimvoxError(
            f"int8 changes the hidden states by {error:.1%} (mean relative error), more than {max_error:.1%}; the file"
            " was removed: export float32, or accept it with --max-error or --force"
        )
