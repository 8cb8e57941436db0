"""Targets of the pre-training: states of Whisper's encoder, their clusters, and who is speaking.

    python training/targets.py --whisper whisper-base --corpus CORPUS

fits the clusters on a sample of the audio. The targets themselves are computed while the teacher is trained, from the
very audio that it hears: an utterance at another speed has other targets.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor, nn

from corpus import FIELD, HOP, Corpus, Rows
from slimvox.checkpoint import load

LAYERS = {"mid": 4, "upper": 5, "last": 6}
"""Hidden states of Whisper base that serve as targets."""
TRAILING_SILENCE = 16_000
"""Samples of silence after each row: Whisper was trained on clips padded with silence to 30 s, and one second brings
the states most of the way to those of the padded clip (cosine .92 against .89 without, at a fraction of the cost)."""
CLUSTERS = 500
CLUSTERING_SECONDS = 4_000
QUIET = 0.2
"""A frame counts as speech if its amplitude is more than this share of the utterance's."""


@dataclass(frozen=True, kw_only=True)
class Targets:
    """Targets for B rows of T frames."""

    states: dict[str, Tensor]
    """Per layer of `LAYERS`, the states, normalised per dimension: (B, T, 512) float32."""
    units: dict[str, Tensor]
    """Per layer of `LAYERS`, the cluster of each state: (B, T) int64."""
    speakers: Tensor
    """Sum of the speakers' vectors over those who are heard, normalised: (B, T, 256) float32."""
    voiced: Tensor
    """Frames that `speakers` is known for: (B, T) bool."""


class ContentTargets(nn.Module):
    """States of Whisper's encoder and their clusters.

    Args:
        whisper: directory of the model.
        statistics: file that this script wrote; None before there is one.
    """

    def __init__(self, whisper: Path, statistics: Path | None) -> None:
        super().__init__()
        self.encoder = load(whisper)
        for name, tensor in load_file(statistics).items() if statistics else ():
            self.register_buffer(name, tensor)

    @torch.no_grad()
    def raw_states(self, waveforms: Tensor) -> dict[str, Tensor]:
        """Per layer, the states of waveforms (B, S) at the frames of a wav2vec 2.0 front end: (B, T, 512) float32.

        A frame of Whisper is centred on sample 320 t, one of the front end on 320 t + 200: the states are interpolated.
        """
        frames = frame_count(waveforms.shape[-1])
        with torch.autocast(waveforms.device.type, torch.bfloat16):
            states = self.encoder(F.pad(waveforms, (0, TRAILING_SILENCE))).hidden_states
        chosen = {name: states[layer].float() for name, layer in LAYERS.items()}
        return {name: 0.375 * x[:, :frames] + 0.625 * x[:, 1 : frames + 1] for name, x in chosen.items()}

    @torch.no_grad()
    def forward(self, waveforms: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Normalised states and their clusters, each per layer."""
        states, units = self.raw_states(waveforms), {}
        for name, state in states.items():
            state = (state - getattr(self, f"{name}_mean")) / getattr(self, f"{name}_std")
            centroids = getattr(self, f"{name}_centroids")
            units[name] = (state @ centroids.T - 0.5 * centroids.square().sum(-1)).argmax(-1)
            states[name] = state
        return states, units


class SpeakerTargets(nn.Module):
    """Vectors of the speakers who are heard in each frame.

    Args:
        directory: the corpus, with the file that `speakers.py` wrote.
        corpus: its audio.
    """

    vectors: Tensor
    amplitudes: Tensor

    def __init__(self, directory: Path, corpus: Corpus) -> None:
        super().__init__()
        vectors = torch.from_numpy(np.fromfile(directory / "speakers.f16", np.float16)).float().view(-1, 256)
        centred = vectors - vectors.mean(0)
        self.register_buffer("vectors", centred / centred.std())
        self.register_buffer("amplitudes", corpus.amplitudes())

    def forward(self, rows: Rows, factor: Tensor) -> tuple[Tensor, Tensor]:
        """`speakers` and `voiced` of `Targets`; `factor` (B,) as `Disturbance.mix` gives it."""
        at = torch.arange(frame_count(rows.waveforms.shape[-1]), device=factor.device) * HOP + FIELD // 2
        utterance, original = rows.utterance[:, at], rows.original[:, at]
        power = F.avg_pool1d(rows.waveforms.square().unsqueeze(1), FIELD, HOP).squeeze(1)
        heard = power.sqrt() > QUIET * self.amplitudes[utterance] * rows.gain[:, at]
        vectors = self.vectors[utterance] * heard.unsqueeze(-1)
        mixed = (factor > 0).unsqueeze(1)
        other = mixed & heard.roll(1, 0)
        speakers = vectors + vectors.roll(1, 0) * mixed.unsqueeze(-1)
        return speakers, (heard | other) & original & (~other | original.roll(1, 0))


def frame_count(samples: int) -> int:
    """Frames of a wav2vec 2.0 front end."""
    return (samples - FIELD) // HOP + 1


def main() -> None:
    """Write `CORPUS/statistics.safetensors`: means, standard deviations and centroids of each layer."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--whisper", type=Path, required=True, help="folder that whisper.py wrote")
    parser.add_argument("--corpus", type=Path, required=True, help="folder that corpus.py wrote")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    corpus, whisper = Corpus(arguments.corpus, torch.device("cpu")), ContentTargets(arguments.whisper, None)
    began, samples = time.monotonic(), {name: [] for name in LAYERS}
    for _ in range(CLUSTERING_SECONDS // 100):
        for name, states in whisper.raw_states(corpus.rows(10, 160_000).waveforms).items():
            samples[name].append(states.flatten(0, 1).numpy())
    print(f"{CLUSTERING_SECONDS} s of audio in {time.monotonic() - began:.0f} s", flush=True)
    tensors = {}
    for name, parts in samples.items():
        sample = np.concatenate(parts)
        mean, deviation = sample.mean(0), sample.std(0)
        kmeans = MiniBatchKMeans(CLUSTERS, batch_size=8192, n_init=1, max_iter=60, random_state=0)
        units = kmeans.fit_predict((sample - mean) / deviation)
        shares = np.bincount(units, minlength=CLUSTERS) / len(units)
        entropy = -(shares * np.log(np.maximum(shares, 1e-12))).sum()
        print(f"{name}: {CLUSTERS} clusters, perplexity {np.exp(entropy):.0f}", flush=True)
        for key, value in (("mean", mean), ("std", deviation), ("centroids", kmeans.cluster_centers_)):
            tensors[f"{name}_{key}"] = torch.from_numpy(np.ascontiguousarray(value, np.float32))
    save_file(tensors, arguments.corpus / "statistics.safetensors")


if __name__ == "__main__":
    main()
