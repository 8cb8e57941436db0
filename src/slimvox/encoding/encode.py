"""Audio files in, files with the hidden states of all layers out; long audio in overlapping chunks."""

from __future__ import annotations

import errno
import hashlib
import itertools
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from slimvox.audio import (
    SAMPLE_RATE_HZ,
    AudioInput,
    SkipCounter,
    UnreadableAudioError,
    as_sources,
    find_audio,
    iter_audio_blocks,
)
from slimvox.audio.sources import UNSUPPORTED_EXTENSIONS, AudioSource, end_tolerance_seconds
from slimvox.checkpoint import Model, encoder_of
from slimvox.encoder import SpeechEncoder
from slimvox.encoder.weights import weights_hash
from slimvox.encoding.chunks import Chunk, ChunkPlan, FloatArray, cut_chunks, plan_chunks
from slimvox.encoding.features_file import (
    DTYPES,
    FeatureDtype,
    FeatureFormat,
    RawArray,
    read_origin,
    write_features,
)
from slimvox.util.devices import Device, find_device
from slimvox.util.errors import SlimvoxError, UnusableResultError
from slimvox.util.output_paths import check_output_folder
from slimvox.util.validation import Seconds, SecondsOrZero, checked_arguments

_BLOCK_SECONDS = 5.0
_TEMPORARY_PREFIX = ".slimvox-encode-"
MOST_NAME_BYTES = 255
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, kw_only=True)
class EncodeResult:
    """Result of `encode_files`."""

    directory: Path
    """Directory of the files."""
    written: int
    """Files written."""
    already_there: int
    """Files of the same encoder and options that were there before, and were kept."""
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
    layers: Literal["all"] | str | Sequence[int] = "all",
    dtype: FeatureDtype = "float32",
    chunk_seconds: Seconds = 30.0,
    overlap_seconds: SecondsOrZero = 2.0,
    device: Device = "auto",
    overwrite: bool = False,
    console: Console | None = None,
) -> EncodeResult:
    """Write the hidden states of each audio file to a file of its own.

    A file holds `layer_00` (what enters the first layer), `layer_01` (what leaves it) and so on, each of shape (frames,
    width), the same as the encoder's `hidden_states`; and the scalar `frame_rate_hz` (50). Its name is that of the
    audio with another suffix, `speaker/a.wav` giving `speaker/a.npz`, below the folder that all of the audio is in.
    Where two would get one name (`a.wav`, `a.flac`) they keep their suffix: `a.wav.npz`. A part of a file that a
    manifest names has its start and end in seconds in its name: `a_12.5-20.0.npz`.

    Audio of up to `chunk_seconds` is encoded whole. Longer audio is encoded in chunks that overlap, and half of each
    overlap is taken from either side; the number of frames is that of the whole all the same. Attention does not reach
    beyond a chunk, so the states differ a little from those of the whole, most of all near a cut. Two kinds of models
    differ a little everywhere: those with a group-norm front end (`anatomy.conv_norm == "group"`, the base models)
    normalise over the time of a chunk, and those with `anatomy.normalize_waveform` normalise the waveform per chunk.
    Neither a waveform nor its states are ever in memory beyond one chunk and an overlap.

    Args:
        model: an encoder, a model of the Auto classes of `transformers` that holds one, or what `slimvox.load` takes.
        audio: files, folders, lists, manifests or data sets, as `slimvox.audio.find_audio` takes them.
        out: directory; made if it is not there.
        format: `npz` or `safetensors`.
        layers: `all`, numbers such as (0, 6, 12), or `"0,6,12"`.
        dtype: of the states in the files; they are computed in float32.
        chunk_seconds: length of a chunk; the last of a file may be longer by up to an overlap.
        overlap_seconds: what neighbouring chunks share.
        device: `auto` is a GPU where there is one; for an encoder that was passed in, where it is.
        overwrite: replace outputs that are there. Otherwise those of the same encoder, options and audio are kept, and
            others are an error.
        console: for a progress bar, where it is a terminal.

    Returns:
        The counts. Files that are broken, empty or shorter than a frame are counted as skipped, and named in the log.

    Raises:
        SlimvoxError: for arguments that make no sense, audio or a model that is not there, an `out` that cannot be
            written or is full, outputs of another encoder, other options or other audio where `overwrite` is False,
            states beyond float16's range, or when nothing at all could be encoded.
        UnusableResultError: if hidden states are NaN or infinite.
    """
    out = Path(out).expanduser()
    check_output_folder(out, "--out")
    sources = as_sources(audio)
    found = find_audio(sources)
    targets = [out / name for name in output_names(found, sources, suffix=f".{format}")]

    encoder = encoder_of(model)
    home = next(encoder.parameters()).device
    where = home if isinstance(model, torch.nn.Module) and device == "auto" else find_device(device)
    writer = _Writer(
        encoder=encoder,
        device=where,
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
    try:
        encoder.to(where)
        with Progress(*columns, console=console, disable=not shown) as bar:
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
    finally:
        encoder.to(home)
    if not written and not already_there:
        raise SlimvoxError(f"None of the audio could be encoded: {skips.summary()}.")
    return EncodeResult(
        directory=out, written=written, already_there=already_there, skipped=skips.counts, seconds=seconds
    )


def parse_layers(layers: str | Sequence[int], count: int) -> tuple[int, ...]:
    """Give the numbers of the hidden states that are asked for, in order, each once.

    Args:
        layers: `all`, numbers, or numbers in a string with commas between them.
        count: layers of the encoder; it has one more hidden state.

    Raises:
        SlimvoxError: if there are none, or one is not a number from 0 to `count`.
    """
    valid = f"`layers` must be `all` or numbers from 0 to {count} with commas between them"
    if isinstance(layers, str):
        if layers.strip() == "all":
            return tuple(range(count + 1))
        try:
            layers = [int(part) for part in layers.split(",")]
        except ValueError:
            raise SlimvoxError(f"{valid}, but is {layers!r} instead") from None
    wrong = [number for number in layers if not 0 <= number <= count]
    if wrong or not layers:
        raise SlimvoxError(f"{valid}, but {'there are none' if not wrong else f'one is {wrong[0]}'}")
    return tuple(sorted(set(layers)))


def output_names(found: Sequence[AudioSource], sources: Sequence[AudioInput], *, suffix: str) -> list[Path]:
    """Give each stretch of audio the relative path of its output; all are different.

    Args:
        found: the audio.
        sources: what it was found in; a folder among them counts as a folder, however deep in it the audio is.
        suffix: of the outputs, with its dot.

    Raises:
        SlimvoxError: if the audio has no common folder (two drives on Windows).
    """
    paths = [Path(os.path.abspath(source.path)) for source in found]
    named = [source for source in sources if isinstance(source, (str, os.PathLike))]
    absolute = [os.path.abspath(Path(source).expanduser()) for source in named]
    folders = {path for path in absolute if os.path.isdir(path)}
    parents = {str(path.parent) for path in paths}
    parents = {
        path for path in parents if not any(path == f or Path(f) in Path(path).parents for f in folders)
    }
    try:
        root = os.path.commonpath(folders | parents)
    except ValueError as error:
        raise SlimvoxError(
            "The audio must be on one drive, so that the outputs can be named after it."
        ) from error

    def name(index: int, keep_suffix: bool) -> Path:
        source, path = found[index], paths[index]
        stem = path.name if keep_suffix else path.stem
        if source.offset_seconds or source.seconds is not None:
            end = "" if source.seconds is None else round(source.offset_seconds + source.seconds, 6)
            stem += f"_{round(source.offset_seconds, 6)}-{end}"
        if source.channel is not None:
            stem += f"_channel{source.channel}"
        return path.relative_to(root).with_name(_fitting(stem, suffix))

    # What is not decoded has no output, and must not change the name of its neighbour's. Keeping a suffix may itself
    # meet a name (`a.wav`, `a.flac`, `a.wav.mp3`), so until nothing changes.
    kept = {index for index, path in enumerate(paths) if path.name.lower().endswith(UNSUPPORTED_EXTENSIONS)}
    names = [name(index, index in kept) for index in range(len(found))]
    while True:
        counts = Counter(os.path.normcase(path) for path in names)
        meeting = {index for index, path in enumerate(names) if counts[os.path.normcase(path)] > 1} - kept
        if not meeting:
            return names
        kept |= meeting
        for index in meeting:
            names[index] = name(index, True)


def _fitting(stem: str, suffix: str) -> str:
    """A file name of at most as many bytes as file systems allow; a longer one is cut, and told apart by its hash."""
    whole = os.fsencode(stem + suffix)
    if len(whole) <= MOST_NAME_BYTES:
        return stem + suffix
    tail = f"~{hashlib.sha256(whole).hexdigest()[:12]}{suffix}"
    # Cutting within a character leaves bytes that are not text, which are left out.
    cut = os.fsencode(stem)[: MOST_NAME_BYTES - len(tail.encode())].decode("utf-8", "ignore")
    return cut + tail


@dataclass(frozen=True, kw_only=True)
class _Writer:
    encoder: SpeechEncoder
    device: torch.device
    plan: ChunkPlan
    layers: tuple[int, ...]
    format: FeatureFormat
    dtype: FeatureDtype
    weights: str
    """Hash of the encoder."""

    def origin(self, source: AudioSource) -> dict[str, Any]:
        """Everything that the features of `source` depend on, as JSON types."""
        return {
            "encoder": self.weights,
            "layers": list(self.layers),
            "dtype": self.dtype,
            "chunk_samples": self.plan.samples,
            "overlap_frames": self.plan.overlap,
            "audio_bytes": os.path.getsize(source.path) if os.path.isfile(source.path) else None,
        }

    def is_done(self, source: AudioSource, target: Path) -> bool:
        """True if `target` holds these features of `source` already.

        Raises:
            SlimvoxError: if it holds anything else.
        """
        if not os.path.lexists(target):
            return False
        try:
            found = read_origin(target, self.format)
        except OSError as error:
            raise SlimvoxError(f"{target} cannot be read: {error.strerror or error}") from error
        origin = self.origin(source)
        if found == origin:
            return True
        if found is None:
            reason = "does not say which encoder it is of"
        else:
            different = [name.split("_")[0] for name in origin if found.get(name) != origin[name]]
            reason = f"has features of another {' and '.join(different)}"
        raise SlimvoxError(
            f"{target} is there already and {reason}; give another `--out`, or `--overwrite` to encode again"
        )

    def write(self, source: AudioSource, target: Path) -> int:
        """Encode `source` into the file `target`, all of it or nothing, and return the samples that it has."""
        blocks = iter_audio_blocks(
            source.path,
            block_seconds=_BLOCK_SECONDS,
            offset_seconds=source.offset_seconds,
            seconds=source.seconds,
            channel=source.channel,
        )
        counted = _Counted(blocks)
        chunks = cut_chunks(counted, self.plan)
        opening = next(chunks, None)
        if opening is None:
            if not counted.samples:
                raise UnreadableAudioError(source.path, "empty", "it holds no samples")
            length = f"{counted.samples / SAMPLE_RATE_HZ:.4f} s, less than one frame"
            raise UnreadableAudioError(source.path, "too short", length)
        target.parent.mkdir(parents=True, exist_ok=True)
        # Next to the output: renaming is atomic within a file system only.
        temporary = Path(tempfile.mkdtemp(prefix=_TEMPORARY_PREFIX, dir=target.parent))
        try:
            frames = 0
            raw = {f"layer_{number:02d}": temporary / f"{number}.raw" for number in self.layers}
            with ExitStack() as stack:
                files = [stack.enter_context(path.open("wb")) for path in raw.values()]
                for chunk in itertools.chain([opening], chunks):
                    states = self._encode(chunk, source)
                    frames += len(states[0])
                    for file, state in zip(files, states, strict=True):
                        file.write(state.data)
            shape = (frames, self.encoder.anatomy.width)
            _check_length(source, counted.samples)
            arrays = {key: RawArray(path=path, shape=shape) for key, path in raw.items()}
            rate_hz = SAMPLE_RATE_HZ / self.encoder.anatomy.hop
            whole = temporary / "whole"
            write_features(
                whole,
                arrays,
                dtype=self.dtype,
                frame_rate_hz=rate_hz,
                format=self.format,
                origin=self.origin(source),
            )
            os.replace(whole, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return counted.samples

    @torch.inference_mode()
    def _encode(self, chunk: Chunk, source: AudioSource) -> list[npt.NDArray[np.floating]]:
        """The frames of a chunk that count: per layer (frames, width), contiguous, in the file's type."""
        try:
            states = self.encoder(torch.from_numpy(chunk.waveform)[None].to(self.device)).hidden_states
        except torch.OutOfMemoryError as error:
            raise SlimvoxError(
                f"{self.device} has too little memory for a chunk of {len(chunk.waveform) / SAMPLE_RATE_HZ:.0f} s;"
                " make `--chunk-seconds` smaller"
            ) from error
        arrays = []
        for number in self.layers:
            state = states[number][0, chunk.first : chunk.end].float().cpu().numpy()
            if not np.isfinite(state).all():
                raise UnusableResultError(
                    f"`{source.path}`: hidden states of layer {number} are NaN or infinite; check the encoder's weights"
                )
            with np.errstate(over="ignore"):
                array = np.ascontiguousarray(state, dtype=DTYPES[self.dtype])
            if not np.isfinite(array).all():
                raise SlimvoxError(
                    f"`{source.path}`: hidden states of layer {number} are beyond the range of float16;"
                    " use `--dtype float32`"
                )
            arrays.append(array)
        return arrays


def _check_length(source: AudioSource, samples: int) -> None:
    """Raise if a stretch of a file is much shorter than what was asked for: other audio was meant."""
    if source.seconds is None:
        return
    have = samples / SAMPLE_RATE_HZ
    if have + end_tolerance_seconds(source.seconds) < source.seconds:
        detail = f"it ends after {have:.2f} s of the {source.seconds:.2f} s that were asked for"
        raise UnreadableAudioError(source.path, "truncated", detail)


class _Counted(Iterator[FloatArray]):
    """Blocks as they come, and how many samples they had."""

    def __init__(self, blocks: Iterator[FloatArray]) -> None:
        self._blocks = blocks
        self.samples = 0

    def __next__(self) -> FloatArray:
        block = next(self._blocks)
        self.samples += len(block)
        return block


def _unwritable(out: Path, error: OSError) -> SlimvoxError:
    if error.errno in _DISK_FULL:
        return SlimvoxError(
            f"The disk of {out} is full; free some space, and the same command goes on with the files that are missing."
        )
    return SlimvoxError(f"`--out` {out} cannot be written: {error.strerror or error}")
