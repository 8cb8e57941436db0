"""Computes what a speaker-verification network says of every utterance: the targets for who is speaking.

    python training/speakers.py --corpus CORPUS

The network is Resemblyzer's (Apache 2.0): an LSTM trained on VoxCeleb and LibriSpeech with the generalised end-to-end
loss. It maps an utterance to a unit vector of 256 values; vectors of one speaker lie close together.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from resemblyzer import VoiceEncoder, preprocess_wav

from corpus import read_index


def main() -> None:
    """Write `speakers.f16`: one row of 256 values for each row of the index."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, required=True, help="folder that corpus.py wrote")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    waveform = np.memmap(arguments.corpus / "wave.i16", np.int16, "r")
    network = VoiceEncoder("cpu", verbose=False)
    rows, began = read_index(arguments.corpus), time.monotonic()
    embeddings = np.empty((len(rows), 256), np.float16)
    for number, row in enumerate(rows):
        samples = waveform[row.start : row.start + row.samples].astype(np.float32) / 32768
        speech = preprocess_wav(samples, source_sr=16_000)
        embeddings[number] = network.embed_utterance(speech if len(speech) else samples)
        if number % 1000 == 0:
            print(f"{number} of {len(rows)} utterances, {time.monotonic() - began:.0f} s", flush=True)
    embeddings.tofile(arguments.corpus / "speakers.f16")


if __name__ == "__main__":
    main()
