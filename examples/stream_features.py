"""Stream features from an exported encoder: hidden states of audio of any length, block by block, without torch.

    slimvox export runs/small --layers last
    python examples/stream_features.py runs/small/encoder.onnx recording.wav

Each chunk is encoded with some context on either side, whose frames are discarded. The features therefore differ a
little from those of the whole recording: attention sees a few seconds instead of everything, and the group norm of base
models runs over the chunk. More context brings them closer.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime
import soundfile

SAMPLE_RATE_HZ = 16_000

FloatArray = npt.NDArray[np.float32]


def stream_features(
    session: onnxruntime.InferenceSession,
    blocks: Iterable[FloatArray],
    *,
    chunk_seconds: float = 4.0,
    context_seconds: float = 1.0,
) -> Iterator[FloatArray]:
    """Encode consecutive blocks of samples as they arrive.

    Args:
        session: an encoder exported with `--layers last`.
        blocks: waveforms (samples,) of any length, 16 kHz.
        chunk_seconds: duration of the features that are returned at a time.
        context_seconds: additional audio on either side; the delay is chunk + context.

    Yields:
        The last hidden states (frames, width); joined, as many frames as the whole recording has.
    """
    metadata = session.get_modelmeta().custom_metadata_map
    hop, receptive_field = int(metadata["downsample_rate"]), int(metadata["shortest_samples"])
    chunk, context = (round(seconds * SAMPLE_RATE_HZ / hop) for seconds in (chunk_seconds, context_seconds))
    buffer = np.zeros(0, dtype=np.float32)
    origin = done = 0  # frames before the buffer, and frames that were returned
    for block in itertools.chain(blocks, [None]):
        if block is not None:
            buffer = np.concatenate([buffer, block])
        frames = origin + max(0, (len(buffer) - receptive_field) // hop + 1)
        while done < frames and (block is None or done + chunk + context <= frames):
            end = min(done + chunk, frames)
            seen = min(end + context, frames)
            samples = (seen - origin - 1) * hop + receptive_field
            (states,) = session.run(None, {"waveforms": buffer[None, :samples]})
            yield states[0, done - origin : end - origin]
            done, start = end, max(0, end - context)
            buffer, origin = buffer[(start - origin) * hop :], start


def read_blocks(path: Path, seconds: float = 0.5) -> Iterator[FloatArray]:
    """Blocks of a file, as a microphone or a network connection would deliver them."""
    with soundfile.SoundFile(path) as file:
        if file.samplerate != SAMPLE_RATE_HZ:
            raise SystemExit(f"{path} must have a sample rate of 16 kHz, but has {file.samplerate} Hz")
        for block in file.blocks(round(seconds * SAMPLE_RATE_HZ), dtype="float32", always_2d=True):
            yield block.mean(axis=1)


def main() -> None:
    """Read the arguments, stream one file and print a line per chunk."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("encoder", type=Path, help=".onnx file written by slimvox export --layers last")
    parser.add_argument("recording", type=Path, help="audio file, 16 kHz")
    parser.add_argument("--chunk-seconds", type=float, default=4.0, help="duration of a chunk")
    parser.add_argument(
        "--context-seconds", type=float, default=1.0, help="context on either side of a chunk"
    )
    arguments = parser.parse_args()
    session = onnxruntime.InferenceSession(str(arguments.encoder))
    began, frames = time.monotonic(), 0
    features = stream_features(
        session,
        read_blocks(arguments.recording),
        chunk_seconds=arguments.chunk_seconds,
        context_seconds=arguments.context_seconds,
    )
    for states in features:
        frames += len(states)
        print(f"{time.monotonic() - began:6.2f} s: {states.shape[0]} frames of width {states.shape[1]}")
    print(f"{frames} frames in {time.monotonic() - began:.2f} s")


if __name__ == "__main__":
    main()
