"""Encoding in memory, from arrays, tensors and files to tensors or arrays of hidden states."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt
import soxr
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from slimvox.audio import SAMPLE_RATE_HZ, read_audio
from slimvox.checkpoint import Model, encoder_of
from slimvox.encoder import SpeechEncoder
from slimvox.encoding.chunks import Chunk, FloatArray, cut_chunks, plan_chunks
from slimvox.encoding.layers import Layers, chosen_states, parse_layers
from slimvox.structures.anatomy import EncoderAnatomy
from slimvox.util.devices import Device, device_for, evaluating
from slimvox.util.errors import SlimvoxError, reason_of
from slimvox.util.validation import Count, Seconds, SecondsOrZero, checked_arguments


@runtime_checkable
class AudioDecoder(Protocol):
    """A recording that is decoded when it is read, as by torchcodec: the audio of a Hugging Face data set."""

    def get_all_samples(self) -> Any:
        """Samples with `data` (channels, samples) and `sample_rate`."""


Recording: TypeAlias = str | os.PathLike[str] | npt.NDArray[Any] | Tensor | Mapping[str, Any] | AudioDecoder
"""A waveform (samples,), a file, or the audio of a data set: a mapping with `array` and `sampling_rate`, or a decoder.
"""


@dataclass(frozen=True, kw_only=True)
class _Piece:
    """A chunk of a recording."""

    recording: int
    place: int
    """Number of the chunk in the recording."""
    chunk: Chunk


@checked_arguments
def encode(
    audio: Recording | Sequence[Recording],
    model: Model,
    *,
    layers: Literal["all", "last"] | str | int | Sequence[int] = "all",
    sampling_rate: Count = SAMPLE_RATE_HZ,
    batch_size: Count = 8,
    chunk_seconds: Seconds = 30.0,
    overlap_seconds: SecondsOrZero = 2.0,
    device: Device = "auto",
    revision: str | None = None,
    token: str | None = None,
    to_numpy: bool = False,
) -> Any:
    """Encode recordings.

    Recordings of similar length are encoded together, padded and masked. If padding would change the result (models
    with a group-norm front end, such as the base models), only recordings of equal length are encoded together. The
    states of a recording therefore do not depend on the others, up to rounding. Recordings longer than `chunk_seconds`
    are encoded in overlapping chunks, as by `encode_files`.

    Args:
        audio: a waveform (samples,) as a numpy array or a tensor of a floating-point type; an audio file; the audio of
            a Hugging Face data set, which is a mapping with `array` and `sampling_rate` or a decoder of torchcodec; or
            a sequence of these, such as an array (recordings, samples).
        model: any argument of `slimvox.load`, an encoder, or a model of `transformers`.
        layers: hidden states to return: `all`; `last`, the encoder's `last_hidden_state`; or numbers, such as
            (0, 6, 12) or 6, where 0 is the input of the first layer.
        sampling_rate: sample rate in Hz of waveforms that come without one; they are resampled if it is not 16,000.
        batch_size: maximum number of recordings or chunks that are encoded together.
        chunk_seconds: length of a chunk.
        overlap_seconds: overlap of neighbouring chunks.
        device: device to run on; `auto` selects a GPU if there is one, or the device of a model that was passed in.
        revision: branch, tag or commit of `model` on the hub; the same as MODEL@REVISION.
        token: access token for the hub; by default the one that `hf auth login` stored.
        to_numpy: return numpy arrays.

    Returns:
        For each recording a float32 tensor on the CPU, (states, frames, width), or (frames, width) for the layer
        `last`; a list of them for a sequence of recordings.

    Raises:
        SlimvoxError: for recordings that are not audio or too short for one frame, and for anything that is not a
            model.

    Examples:
        >>> states = slimvox.encode("speech/a.wav", "embedded")  # (layers + 1, frames, width)
        >>> features = slimvox.encode([first, second], "embedded", layers="last", batch_size=16)
    """
    single = _is_single(audio)
    try:
        recordings: list[Any] = [audio] if single else list(audio)  # type: ignore[arg-type]
    except TypeError as error:
        raise SlimvoxError(
            f"`audio` must be a recording or a sequence of recordings, but is of type {type(audio).__name__} instead"
        ) from error
    encoder = encoder_of(model, revision=revision, token=token)
    chosen = parse_layers(layers, len(encoder.anatomy.layers))
    plan = plan_chunks(encoder.anatomy, chunk_seconds=chunk_seconds, overlap_seconds=overlap_seconds)
    pieces = []
    for number, recording in enumerate(recordings):
        waveform = _waveform(recording, number, sampling_rate)
        chunks = list(cut_chunks(iter([waveform]), plan))
        if not chunks:
            raise SlimvoxError(
                f"{_named(recording, number)} must have at least {encoder.anatomy.receptive_field} samples, but has"
                f" {len(waveform)}"
            )
        pieces += [_Piece(recording=number, place=place, chunk=chunk) for place, chunk in enumerate(chunks)]
    where = device_for(model, device)
    found: dict[tuple[int, int], Tensor] = {}
    with evaluating(encoder, where):
        for batch in _batches(pieces, batch_size, encoder.anatomy):
            for piece, encoded in zip(batch, _encoded(encoder, batch, chosen, where), strict=True):
                found[piece.recording, piece.place] = encoded
    parts: list[list[Tensor]] = [[] for _ in recordings]
    for recording_number, place in sorted(found):
        parts[recording_number].append(found[recording_number, place])
    results = [torch.cat(each, dim=-2) for each in parts]
    converted = [each.numpy() for each in results] if to_numpy else results
    return converted[0] if single else converted


def _is_single(audio: Any) -> bool:
    kinds = (str, os.PathLike, Mapping, AudioDecoder)
    return isinstance(audio, kinds) or getattr(audio, "ndim", None) == 1


def _named(recording: Recording, number: int) -> str:
    return str(recording) if isinstance(recording, str | os.PathLike) else f"recording {number}"


def _waveform(recording: Recording, number: int, sampling_rate: int) -> FloatArray:
    """The waveform of a recording, (samples,) at 16 kHz."""
    if isinstance(recording, str | os.PathLike):
        path = Path(recording).expanduser()
        if path.is_dir():
            raise SlimvoxError(f"{path} is a folder; name the files in it, or use `slimvox.encode_files`")
        return read_audio(path)
    if isinstance(recording, Mapping):
        if not {"array", "sampling_rate"} <= set(recording):
            raise SlimvoxError(f"recording {number} must have the keys `array` and `sampling_rate`")
        return _waveform(recording["array"], number, _rate(recording["sampling_rate"], number))
    if isinstance(recording, AudioDecoder):
        decoded = recording.get_all_samples()
        return _waveform(decoded.data.mean(0), number, _rate(decoded.sample_rate, number))
    if isinstance(recording, Tensor):
        recording = recording.detach().cpu()
        recording = recording.float().numpy() if recording.is_floating_point() else recording.numpy()
    try:
        samples = np.asarray(recording)
    except (TypeError, ValueError) as error:
        raise SlimvoxError(
            f"recording {number} must be one waveform (samples,), but is not an array: {reason_of(error)}"
        ) from error
    if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
        raise SlimvoxError(
            f"recording {number} must be one waveform (samples,) of floating-point numbers, but has the shape"
            f" {samples.shape} and the type {samples.dtype}"
        )
    if not np.isfinite(samples).all():
        raise SlimvoxError(f"recording {number} holds samples that are NaN or infinite")
    samples = samples.astype(np.float32)
    if sampling_rate != SAMPLE_RATE_HZ:
        samples = soxr.resample(samples, sampling_rate, SAMPLE_RATE_HZ)
    return samples


def _rate(value: Any, number: int) -> int:
    try:
        rate = int(value)
    except (TypeError, ValueError, OverflowError):
        rate = 0
    if rate < 1:
        raise SlimvoxError(
            f"`sampling_rate` of recording {number} must be a whole number above 0, but is {value!r} instead"
        )
    return rate


def _batches(pieces: Sequence[_Piece], size: int, anatomy: EncoderAnatomy) -> Iterator[list[_Piece]]:
    """Pieces of similar length, the longest first; of equal length where padding would change the result."""
    pads = anatomy.conv_norm != "group"
    batch: list[_Piece] = []
    for piece in sorted(pieces, key=lambda each: len(each.chunk.waveform), reverse=True):
        fits = not batch or pads or len(piece.chunk.waveform) == len(batch[0].chunk.waveform)
        if batch and (len(batch) == size or not fits):
            yield batch
            batch = []
        batch.append(piece)
    if batch:
        yield batch


@torch.no_grad()
def _encoded(
    encoder: SpeechEncoder, batch: Sequence[_Piece], layers: Layers, device: torch.device
) -> Iterator[Tensor]:
    """The frames of each piece that count, on the CPU."""
    lengths = torch.tensor([len(piece.chunk.waveform) for piece in batch])
    waveforms = pad_sequence([torch.from_numpy(piece.chunk.waveform) for piece in batch], batch_first=True)
    mask = torch.arange(waveforms.shape[1]) < lengths[:, None]
    output = encoder(waveforms.to(device), None if bool(mask.all()) else mask.to(device))
    states = torch.stack(chosen_states(output, layers), dim=1).float().cpu()
    if layers == "last":
        states = states.squeeze(1)
    for piece, encoded, count in zip(batch, states, output.frame_mask.sum(-1).tolist(), strict=True):
        first, end = piece.chunk.first, count if piece.chunk.end is None else piece.chunk.end
        yield encoded[..., first:end, :].clone()
