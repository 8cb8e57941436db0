"""Encoding of audio files to files with hidden states; long audio is divided into overlapping chunks."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from slimvox.audio import (
    SAMPLE_RATE_HZ,
    AudioInput,
    SkipCounter,
    UnreadableAudioError,
    as_sources,
    find_audio,
)
from slimvox.checkpoint import Model, encoder_of
from slimvox.encoder.weights import weights_hash
from slimvox.encoding.chunks import plan_chunks
from slimvox.encoding.feature_writer import FeatureWriter
from slimvox.encoding.features_file import (
    FeatureDtype,
    FeatureFormat,
)
from slimvox.encoding.layers import parse_layers
from slimvox.encoding.output_names import output_names
from slimvox.util.devices import Device, device_for, evaluating
from slimvox.util.errors import SlimvoxError, reason_of
from slimvox.util.output_paths import check_output_folder
from slimvox.util.validation import Seconds, SecondsOrZero, checked_arguments

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, kw_only=True)
class EncodeResult:
    """Result of `encode_files`."""

    directory: Path
    """Output directory."""
    written: int
    """Files written."""
    already_there: int
    """Existing files of the same encoder and options, which were kept."""
    skipped: dict[str, int]
    """Number of audio files without an output, by reason."""
    seconds: float
    """Seconds of audio that were encoded."""


@checked_arguments
def encode_files(
    model: Model,
    audio: AudioInput | Sequence[AudioInput],
    out: str | Path,
    *,
    format: FeatureFormat = "npz",
    layers: Literal["all", "last"] | str | int | Sequence[int] = "all",
    dtype: FeatureDtype = "float32",
    chunk_seconds: Seconds = 30.0,
    overlap_seconds: SecondsOrZero = 2.0,
    device: Device = "auto",
    revision: str | None = None,
    token: str | None = None,
    overwrite: bool = False,
    console: Console | None = None,
) -> EncodeResult:
    """Write the hidden states of each audio file to a separate file.

    A file holds `layer_00` (the input of the first layer), `layer_01` (its output) and so on, each of shape (frames,
    width), the same as the encoder's `hidden_states` (with `layers="last"` only `last_hidden_state`); and the scalar
    `frame_rate_hz` (50). Its name is that of the
    audio with another suffix, such as `speaker/a.npz` for `speaker/a.wav`, relative to the common folder of all audio.
    If two files would get the same name (`a.wav`, `a.flac`) they keep their suffix: `a.wav.npz`. A part of a file that
    a manifest names has its start and end in seconds in its name: `a_12.5-20.0.npz`.

    Audio of up to `chunk_seconds` is encoded whole. Longer audio is encoded in chunks that overlap, and half of each
    overlap is taken from either side; the number of frames is the same as without chunks. Attention does not reach
    beyond a chunk, so the states differ slightly from those of the whole audio, mostly near a cut. Two kinds of models
    differ slightly everywhere: those with a group-norm front end (`anatomy.conv_norm == "group"`, the base models)
    normalise over the time of a chunk, and those with `anatomy.normalize_waveform` normalise the waveform per chunk.
    Neither a waveform nor its states are ever in memory beyond one chunk and an overlap.

    Args:
        model: encoder: `embedded`, a local directory, or a model id on the Hugging Face hub such as
            microsoft/wavlm-base-plus. In Python also an encoder, or a model of `transformers` with an encoder.
        audio: audio sources: files, folders, shards (.tar), lists (.txt), manifests (.tsv, .csv, .jsonl), URLs of
            them, or Hugging Face data sets (hf:NAME, hf:NAME:CONFIGURATION:SPLIT, .parquet, a save_to_disk folder). In
            Python also a loaded `datasets.Dataset`.
        out: output directory; files are named after the audio.
        format: file format of the outputs: npz (numpy) or safetensors.
        layers: hidden states to write: `all`; `last`, the encoder's `last_hidden_state`; or numbers such as 0,6,12,
            where 0 is the input of the first layer. In Python also a number or a sequence of numbers.
        dtype: data type of the hidden states in the files.
        chunk_seconds: chunk length in seconds; longer audio is encoded in chunks; the last one may be longer by up to
            an overlap.
        overlap_seconds: overlap of neighbouring chunks in seconds; each chunk contributes half of it.
        device: device to run on; auto selects a GPU if there is one. In Python, for an encoder that was passed in, its
            device.
        revision: branch, tag or commit of `model` on the Hugging Face hub; the same as MODEL@REVISION.
        token: access token for the hub; by default the one in HF_TOKEN, or the one that `hf auth login` stored.
        overwrite: replace existing outputs; by default, outputs of the same encoder, options and audio are kept, and
            others are an error. Audio is compared by its bytes; that of URLs is not compared.
        console: console for a progress bar, if it is a terminal.

    Returns:
        The counts. Files that are broken, empty or shorter than a frame are counted as skipped, and named in the log.

    Raises:
        SlimvoxError: if an argument is invalid, the audio or the model does not exist, `out` cannot be written, an
            output of another encoder, of other options or of other audio exists and `overwrite` is False, states exceed
            float16's range, or nothing could be encoded.
        UnusableResultError: if hidden states are NaN or infinite.
    """
    out = Path(out).expanduser()
    check_output_folder(out, "--out")
    sources = as_sources(audio)
    found = find_audio(sources)
    targets = [out / name for name in output_names(found, sources, suffix=f".{format}")]

    encoder = encoder_of(model, revision=revision, token=token)
    writer = FeatureWriter(
        encoder=encoder,
        device=device_for(model, device),
        plan=plan_chunks(encoder.anatomy, chunk_seconds=chunk_seconds, overlap_seconds=overlap_seconds),
        layers=parse_layers(layers, len(encoder.anatomy.layers)),
        format=format,
        dtype=dtype,
        weights=weights_hash(encoder),
    )
    finished = (
        set()
        if overwrite
        else {each[1] for each in zip(found, targets, strict=True) if writer.is_done(*each)}
    )
    skips = SkipCounter()
    written, already_there, seconds = 0, 0, 0.0
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    shown = console is not None and console.is_terminal
    with (
        evaluating(encoder, writer.device),
        Progress(*columns, console=console, disable=not shown) as bar,
    ):
        for source, target in bar.track(
            zip(found, targets, strict=True), total=len(found), description="encoding"
        ):
            if target in finished:
                already_there += 1
                continue
            try:
                samples = writer.write(source, target)
            except UnreadableAudioError as error:
                skips.add(error.path, error.reason, error.detail, offset_seconds=source.offset_seconds)
                continue
            except OSError as error:
                raise _unwritable(out, error) from error
            written += 1
            seconds += samples / SAMPLE_RATE_HZ
    if not written and not already_there:
        raise SlimvoxError(f"None of the audio could be encoded: {skips.summary()}.")
    return EncodeResult(
        directory=out, written=written, already_there=already_there, skipped=skips.counts, seconds=seconds
    )


def _unwritable(out: Path, error: OSError) -> SlimvoxError:
    if error.errno in _DISK_FULL:
        return SlimvoxError(
            f"The disk of {out} is full; free some space, and the same command goes on with the files that are missing."
        )
    return SlimvoxError(f"`--out` {out} cannot be written: {reason_of(error)}")
