"""Encoding of one stretch of audio to one file of hidden states, chunk by chunk."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from slimvox.audio import SAMPLE_RATE_HZ, UnreadableAudioError, iter_audio_blocks
from slimvox.audio.sources import AudioSource, end_tolerance_seconds
from slimvox.encoder import SpeechEncoder
from slimvox.encoding.audio_content import content_hash, modified_ns
from slimvox.encoding.chunks import Chunk, ChunkPlan, FloatArray, cut_chunks
from slimvox.encoding.features_file import (
    DTYPES,
    FeatureDtype,
    FeatureFormat,
    RawArray,
    read_origin,
    write_features,
)
from slimvox.encoding.layers import Layers, chosen_states, state_names
from slimvox.util.errors import SlimvoxError, UnusableResultError, reason_of

_BLOCK_SECONDS = 5.0
_TEMPORARY_PREFIX = ".slimvox-encode-"
_MODIFIED, _CONTENT = "audio_modified_ns", "audio_sha256"
"""Entries of an origin."""


@dataclass(frozen=True, kw_only=True)
class FeatureWriter:
    """Encodes one stretch of audio after the other, each into a file."""

    encoder: SpeechEncoder
    device: torch.device
    plan: ChunkPlan
    layers: Layers
    format: FeatureFormat
    dtype: FeatureDtype
    weights: str
    """Hash of the encoder."""

    def origin(self, source: AudioSource) -> dict[str, Any]:
        """Everything that the features of `source` depend on, as JSON types."""
        return {
            **self._settings(source),
            _MODIFIED: modified_ns(source.path),
            _CONTENT: content_hash(source.path),
        }

    def _settings(self, source: AudioSource) -> dict[str, Any]:
        """The part of `origin` that is known without reading the audio, and that earlier versions recorded too."""
        return {
            "encoder": self.weights,
            "layers": self.layers if self.layers == "last" else list(self.layers),
            "dtype": self.dtype,
            "chunk_samples": self.plan.samples,
            "overlap_frames": self.plan.overlap,
            "audio_bytes": os.path.getsize(source.path) if os.path.isfile(source.path) else None,
        }

    def is_done(self, source: AudioSource, target: Path) -> bool:
        """True if `target` already holds these features of `source`.

        Raises:
            SlimvoxError: if it holds anything else.
        """
        if not os.path.lexists(target):
            return False
        try:
            found = read_origin(target, self.format)
        except OSError as error:
            raise SlimvoxError(f"{target} cannot be read: {reason_of(error)}") from error
        if found is None:
            reason = "does not record its encoder"
        else:
            settings = self._settings(source)
            different = [name.split("_")[0] for name in settings if found.get(name) != settings[name]]
            if not different and not _is_content_of(source, found):
                different = ["audio"]
            if not different:
                return True
            reason = f"has features of another {' and '.join(different)}"
        raise SlimvoxError(
            f"{target} exists already and {reason}; give another `--out`, or `--overwrite` to encode again"
        )

    def write(self, source: AudioSource, target: Path) -> int:
        """Encode `source` into the file `target`, completely or not at all, and return its number of samples."""
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
        # Before the rest is decoded, so that audio that changes meanwhile counts as other audio later.
        origin = self.origin(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        # In the folder of the output, because renaming is atomic only within a file system.
        temporary = Path(tempfile.mkdtemp(prefix=_TEMPORARY_PREFIX, dir=target.parent))
        try:
            frames = 0
            raw = {name: temporary / f"{name}.raw" for name in state_names(self.layers)}
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
                origin=origin,
            )
            os.replace(whole, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        return counted.samples

    @torch.inference_mode()
    def _encode(self, chunk: Chunk, source: AudioSource) -> list[npt.NDArray[np.floating]]:
        """The frames of a chunk that count: per layer (frames, width), contiguous, in the data type of the file."""
        try:
            output = self.encoder(torch.from_numpy(chunk.waveform)[None].to(self.device))
        except torch.OutOfMemoryError as error:
            raise SlimvoxError(
                f"{self.device} has too little memory for a chunk of {len(chunk.waveform) / SAMPLE_RATE_HZ:.0f} s;"
                " make `--chunk-seconds` smaller"
            ) from error
        arrays = []
        for name, states in zip(state_names(self.layers), chosen_states(output, self.layers), strict=True):
            state = states[0, chunk.first : chunk.end].float().cpu().numpy()
            if not np.isfinite(state).all():
                raise UnusableResultError(
                    f"`{source.path}`: hidden states `{name}` are NaN or infinite; check the encoder's weights"
                )
            with np.errstate(over="ignore"):
                array = np.ascontiguousarray(state, dtype=DTYPES[self.dtype])
            if not np.isfinite(array).all():
                raise SlimvoxError(
                    f"`{source.path}`: hidden states `{name}` are beyond the range of float16;"
                    " use `--dtype float32`"
                )
            arrays.append(array)
        return arrays


def _is_content_of(source: AudioSource, found: Mapping[str, Any]) -> bool:
    """False if an output records other audio; audio that was not modified since is not read again."""
    if _CONTENT not in found:  # written by an earlier version
        return True
    modified = modified_ns(source.path)
    return (modified is not None and found.get(_MODIFIED) == modified) or (
        content_hash(source.path) == found[_CONTENT]
    )


def _check_length(source: AudioSource, samples: int) -> None:
    """Raise UnreadableAudioError if a stretch of a file is much shorter than requested."""
    if source.seconds is None:
        return
    have = samples / SAMPLE_RATE_HZ
    if have + end_tolerance_seconds(source.seconds) < source.seconds:
        detail = f"it ends after {have:.2f} s of the {source.seconds:.2f} s that were asked for"
        raise UnreadableAudioError(source.path, "truncated", detail)


class _Counted(Iterator[FloatArray]):
    """Iterator over blocks that counts their samples."""

    def __init__(self, blocks: Iterator[FloatArray]) -> None:
        self._blocks = blocks
        self.samples = 0

    def __next__(self) -> FloatArray:
        block = next(self._blocks)
        self.samples += len(block)
        return block
