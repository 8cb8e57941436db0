"""Export of a model to a file, and its comparison with the model before the file is kept."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from slimvox.audio import AudioInput
from slimvox.checkpoint.decoder import SPEECH_TO_TEXT, has_decoder
from slimvox.checkpoint.json_fields import read_json
from slimvox.checkpoint.pretrained import Model, on_disk
from slimvox.checkpoint.resolve import LoadedModel, load_model
from slimvox.exporters.accuracy import compare
from slimvox.exporters.base import export_format, export_formats
from slimvox.exporters.calibration import Int8Speech
from slimvox.exporters.decoder import (
    INPUTS,
    OUTPUTS,
    CrossProjections,
    decoder_difference,
    decoder_metadata,
    load_whisper,
    trace_decoder,
)
from slimvox.exporters.int8 import DEFAULT_MAX_ERROR, Int8Errors, measured_errors
from slimvox.exporters.metadata import metadata
from slimvox.exporters.onnx_file import DEFAULT_OPSET, Onnx, write_onnx
from slimvox.exporters.reference import Reference
from slimvox.exporters.signature import Layers, Signature
from slimvox.exporters.staging import check_target, move_into_place, staging_directory
from slimvox.hf.directory_format import head_name
from slimvox.util.errors import SlimvoxError, reason_of
from slimvox.util.validation import Positive, checked_arguments

if TYPE_CHECKING:
    from slimvox.hf.heads import SlimvoxWithHead

TOLERANCE = 1e-3
"""Largest difference from torch, as a share of the largest value of an output, in float32."""


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """A file that was written, and its difference from the encoder."""

    path: Path
    """The file."""
    bytes: int
    """Its size, that of a second file with its weights included (ONNX over 2 GB: `.data`; OpenVINO: `.bin`)."""
    inputs: tuple[str, ...]
    """Names of its inputs: `waveforms`, perhaps `attention_mask`."""
    outputs: tuple[str, ...]
    """Names of its outputs, in their order."""
    worst_difference: float
    """Maximum difference between float32 and torch on noise, relative to the largest value of an output."""
    compared: tuple[tuple[int, int], ...]
    """Batch sizes and lengths in samples of that measurement."""
    int8_errors: Int8Errors | None
    """int8 only: errors relative to float32."""
    head_left_out: str | None
    """The task head of the model (such as `ForCTC`) if it was not exported."""
    decoder: Path | None = None
    """File of Whisper's decoder if it was exported."""


@checked_arguments
def export(
    model: Model,
    out: str | Path | None = None,
    *,
    format: str = "onnx",
    int8: bool = False,
    heads: bool = False,
    layers: Layers | None = None,
    mask: bool = False,
    opset: int | None = None,
    calibration: Sequence[AudioInput] = (),
    max_error: Positive = DEFAULT_MAX_ERROR,
    force: bool = False,
    revision: str | None = None,
    token: str | None = None,
    report: Callable[[str], None] = lambda message: None,
) -> ExportResult:
    """Write an encoder, or a model with a task head, as a file that runs without slimvox.

    It reads `waveforms`, (batch, samples) float32 at 16 kHz, of any batch size and any length from one frame (400
    samples) upwards, and returns `hidden_state_00` and so on, each (batch, frames, width). Waveforms are normalised
    inside if the model requires it. With its task head, it returns `logits` (and of an x-vector head `embeddings`)
    instead or as well. For a Whisper with its decoder, `heads` writes two ONNX files: one that returns `cross_keys` and
    `cross_values`, and `NAME-decoder.onnx`, which turns them into tokens (see docs/whisper.md).

    Args:
        model: model to export: `embedded`, a local directory, or a model id on the Hugging Face hub. In Python also an
            encoder or a model of `transformers`, with its task head if `heads` is true; `out` must be given then.
        out: output file. By default, encoder, encoder-int8 or (with `heads`) model, with the format's ending such as
            encoder.onnx, in the model's directory; for a model that is not a local directory, its name with that ending
            in the current folder.
        format: file format, such as onnx, openvino, executorch, or torch-export, a .pt2 file for AOTInductor or torch
            itself. In Python the name of any registered `ExportFormat`.
        int8: quantise matrix products to int8, fast on processors with 8-bit dot products (x86: VNNI; Arm: dotprod);
            convolutions stay float32. The error is measured on the embedded speech, or on that of `calibration`.
        calibration: speech for determining the scales of an int8 OpenVINO file and for measuring its error: 24 and 8
            clips, spread evenly; by default, the embedded speech.
        heads: include the task head: return its logits (and the embeddings of an x-vector head).
        layers: hidden states to return: all, only the last, or none. By default, none with `heads`, otherwise all.
        mask: add an attention mask over samples to the inputs, and the mask over frames to the outputs.
        opset: operator set version, if the format has such versions. By default, the format's own (ONNX: 20).
        max_error: maximum mean relative error of the int8 hidden states or logits.
        force: replace an existing file, and accept an int8 error above `max_error`.
        revision: branch, tag or commit of `model` on the Hugging Face hub; the same as MODEL@REVISION.
        token: access token for the hub; by default the one in HF_TOKEN, or the one that `hf auth login` stored.
        report: called with a text about the current work.

    Raises:
        SlimvoxError: if the model cannot be read, packages are missing, or the file cannot be written or differs too
            much from the encoder. Nothing is left behind then, and an existing file is not changed.
    """
    if layers is None:
        layers = "none" if heads else "all"
    if layers == "none" and not heads:
        raise SlimvoxError("there is nothing to export without hidden states and without --heads")
    chosen = export_format(format)
    chosen.check_holds(int8=int8, heads=heads, mask=mask)
    chosen.require(chosen.packages_to_write)
    chosen.check_opset(opset)
    if calibration and not (int8 and chosen.calibrates_int8):
        able = [each.name for each in export_formats() if each.calibrates_int8]
        raise SlimvoxError(f"`calibration` is for int8 of --format {' or '.join(able)} only")
    if out is None and not isinstance(model, str | os.PathLike):
        raise SlimvoxError("`out` must be given for a model that is not a name or a directory")
    with on_disk(model, revision=revision, token=token) as name:
        loaded = load_model(name)
        target = _target(loaded, out, ending=f"{'-int8' if int8 else ''}{chosen.ending}", heads=heads)
        if target.suffix != chosen.ending and not target.is_dir():
            raise SlimvoxError(
                f"a file of --format {chosen.name} must end in {chosen.ending}, but `out` is {target.name} instead"
            )
        speaks = has_decoder(loaded.directory)
        whisper = load_whisper(loaded.directory) if heads and speaks else None
        decoder = None if whisper is None else target.with_name(f"{target.stem}-decoder{target.suffix}")
        if decoder is not None and not isinstance(chosen, Onnx):
            raise SlimvoxError("a decoder is for --format onnx only; leave --heads out")
        # Weights before the file that needs them.
        files = [each for main in (decoder, target) if main for each in (chosen.companion(main), main)]
        for file in files:
            check_target(file, force=force)
        head = _head(loaded, whisper) if heads else None
        signature = Signature(layers=layers, mask=mask, head=head.head_outputs if head else ())
        reference = Reference(encoder=loaded.encoder, head=head, signature=signature)
        about = metadata(loaded, reference, int8=int8)
        speech = Int8Speech(calibration, reference) if int8 else None
        config = read_json(loaded.directory / "config.json")
        head_left_out = None if heads else SPEECH_TO_TEXT if speaks else head_name(config)
    errors: Int8Errors | None = None
    with staging_directory(target) as staging:
        staged = staging / target.name
        report("tracing the encoder")
        with failures_named(chosen.name, target):
            chosen.write(reference, staged, metadata=about, opset=opset)
            report("comparing with torch")
            comparison = compare(chosen.open(staged), reference)
        if not comparison.worst_difference <= TOLERANCE:
            raise SlimvoxError(
                f"the exported model differs from torch by {comparison.worst_difference:.1e} of an output's largest"
                f" value, more than {TOLERANCE:.0e}; the file was removed: please report this as a bug"
            )
        if speech is not None:
            report("quantising, and measuring the error")
            with failures_named(f"{chosen.name}, int8", target):
                chosen.to_int8(staged, speech.scales if chosen.calibrates_int8 else ())
            errors = measured_errors(chosen.open(staged), reference, speech.error, speech.error_source)
            errors.check(max_error, force=force)
        if decoder is not None:
            report("exporting the decoder")
            with failures_named(chosen.name, decoder):
                _write_decoder(whisper, staging / decoder.name, about, opset)
        size = sum(file.stat().st_size for file in (staged, chosen.companion(staged)) if file.exists())
        move_into_place(staging, files)
    return ExportResult(
        path=target,
        bytes=size,
        inputs=signature.inputs,
        outputs=reference.outputs,
        worst_difference=comparison.worst_difference,
        compared=comparison.inputs,
        int8_errors=errors,
        head_left_out=head_left_out,
        decoder=decoder,
    )


def _write_decoder(whisper: Any, path: Path, about: Mapping[str, str], opset: int | None) -> None:
    """Write Whisper's decoder and compare it with `transformers`."""
    write_onnx(
        trace_decoder(whisper),
        path,
        inputs=INPUTS,
        outputs=OUTPUTS,
        opset=DEFAULT_OPSET if opset is None else opset,
        metadata={**decoder_metadata(whisper, about), "precision": "float32"},
        axes=(("batch", "tokens"), ("batch", "tokens")),
    )
    difference = decoder_difference(Onnx().open(path), whisper)
    if not difference <= TOLERANCE:
        raise SlimvoxError(
            f"the exported decoder differs from torch by {difference:.1e} of its largest logit, more than"
            f" {TOLERANCE:.0e}; nothing was written: please report this as a bug"
        )


export_encoder = export
"""Name of `export` in earlier versions."""


@contextmanager
def failures_named(format: str, target: Path) -> Iterator[None]:
    """Turn any exception of torch or onnxruntime, whose classes differ, into a SlimvoxError."""
    try:
        yield
    except SlimvoxError:
        raise
    except OSError as error:
        raise SlimvoxError(f"{target} cannot be written: {reason_of(error)}") from error
    except Exception as error:
        raise SlimvoxError(
            f"torch {torch.__version__} cannot export this encoder as {format} ({type(error).__name__}:"
            f" {reason_of(error)}); nothing was written: try another version of torch, and report this as a bug of"
            " slimvox"
        ) from error


def _target(model: LoadedModel, out: str | Path | None, *, ending: str, heads: bool) -> Path:
    """Path of the output file."""
    if out is not None:
        return Path(out).expanduser()
    local = Path(model.name).expanduser()
    if local.is_dir():
        return local / f"{'model' if heads else 'encoder'}{ending}"
    return Path(f"{model.name.rpartition('/')[2]}{ending}")


def _head(model: LoadedModel, whisper: Any) -> SlimvoxWithHead:
    """The task head of a model; for a Whisper, the projections that its decoder reads."""
    from slimvox.checkpoint.carry import load_with_head

    if whisper is not None:
        return cast("SlimvoxWithHead", CrossProjections(model.encoder, whisper))
    return load_with_head(model.directory)
