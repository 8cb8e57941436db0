"""Linear probes: a softmax-weighted sum of layers and one linear map, fitted at several learning rates at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import jiwer
import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEARNING_RATES = {"phones": (1e-2, 3e-2), "keywords": (3e-3, 1e-2, 3e-2, 1e-1)}
BLANK = 0
"""CTC's class for no phone; the symbols follow."""
INITIAL_BLANK = 3.0
"""The blank's first bias: most frames are blank, and starting from there spares CTC its first, wild updates."""
BLANK_PENALTIES = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0)
"""Amount subtracted from the blank's logit when phones are decoded; chosen on held-out data like the learning rate."""


@dataclass(kw_only=True)
class Clip:
    """A clip's features and labels, as a probe sees them."""

    features: Tensor
    """(frames, layers, width) bfloat16, whitened; one frame where the task averages over time."""
    label: str


class Probe(nn.Module):
    """Features (..., frames, layers, width) to logits (..., frames, classes)."""

    def __init__(self, layers: int, width: int, classes: int) -> None:
        super().__init__()
        self.layer_weights = nn.Parameter(torch.zeros(layers))
        self.output = nn.Linear(width, classes)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Mix the layers and classify each frame.

        The layers' weights go into those of the linear map rather than the features, of which there are far more.
        """
        weight = self.output.weight.unsqueeze(1) * self.layer_weights.softmax(0).unsqueeze(-1)
        weight = weight.flatten(1).to(features.dtype)
        return F.linear(features.flatten(-2), weight).float() + self.output.bias


@dataclass(frozen=True, kw_only=True)
class ProbeTask:
    """Phones (a sequence by CTC) or keywords (one class a clip)."""

    kind: str
    epochs: int
    clips_per_batch: int = 16

    def pooled(self, features: Tensor) -> Tensor:
        """Selection of a clip's features (frames, layers, width)."""
        return features if self.kind == "phones" else features.float().mean(0, keepdim=True).half()

    def symbols(self, label: str) -> list[str]:
        """Symbols that a label consists of."""
        return label.split() if self.kind == "phones" else [label]

    def loss(self, probe: Probe, clips: list[Clip], batch: Tensor, symbols: list[str]) -> Tensor:
        """Mean loss of a batch; `batch` (clips, frames, layers, width) are the clips' features, padded."""
        logits = probe(batch)
        if self.kind == "keywords":
            return F.cross_entropy(logits[:, 0], torch.tensor([symbols.index(clip.label) for clip in clips]))
        labels = [[1 + symbols.index(s) for s in self.symbols(clip.label)] for clip in clips]
        return F.ctc_loss(
            logits.log_softmax(-1).transpose(0, 1),
            torch.tensor([symbol for label in labels for symbol in label]),
            torch.tensor([len(clip.features) for clip in clips]),
            torch.tensor([len(label) for label in labels]),
            blank=BLANK,
            zero_infinity=True,
        )

    def read_off(self, logits: Tensor, symbols: list[str], blank_penalty: float = 0.0) -> str:
        """The most likely label for the logits (frames, classes) of one clip, CTC read greedily."""
        if self.kind == "phones":
            logits = logits - blank_penalty * F.one_hot(torch.tensor(BLANK), logits.shape[-1])
        best = logits.argmax(-1)
        if self.kind == "keywords":
            return symbols[int(best[0])]
        return " ".join(symbols[i - 1] for i in best.unique_consecutive().tolist() if i != BLANK)

    def score(self, labels: list[str], guesses: list[str]) -> tuple[str, float]:
        """Name and value of the figure that the task is judged by."""
        if self.kind == "phones":
            return "error_rate", float(jiwer.wer(labels, guesses))
        return "accuracy", sum(a == b for a, b in zip(labels, guesses, strict=True)) / len(labels)

    @torch.no_grad()
    def errors(self, probe: Probe, clips: list[Clip], symbols: list[str]) -> dict[float, float]:
        """Error rate on clips by blank penalty."""
        logits = [probe(clip.features) for clip in clips]
        labels, errors = [clip.label for clip in clips], {}
        for penalty in BLANK_PENALTIES if self.kind == "phones" else (0.0,):
            name, value = self.score(labels, [self.read_off(each, symbols, penalty) for each in logits])
            errors[penalty] = value if name == "error_rate" else 1 - value
        return errors


def fit(task: ProbeTask, clips: list[Clip], symbols: list[str], *, seed: int) -> dict[float, Probe]:
    """One fitted probe per learning rate, from the same batches; the rate falls linearly to 0."""
    _, layers, width = clips[0].features.shape
    torch.manual_seed(seed)
    probes = {
        rate: Probe(layers, width, len(symbols) + (task.kind == "phones"))
        for rate in LEARNING_RATES[task.kind]
    }
    if task.kind == "phones":
        for probe in probes.values():
            probe.output.bias.data[BLANK] = INITIAL_BLANK
    optimisers = {rate: torch.optim.Adam(probe.parameters(), lr=rate) for rate, probe in probes.items()}
    steps = task.epochs * -(-len(clips) // task.clips_per_batch)
    for step, chosen in enumerate(_batches(task, clips, seed)):
        batch = nn.utils.rnn.pad_sequence([clip.features for clip in chosen], batch_first=True)
        for rate, probe in probes.items():
            for group in optimisers[rate].param_groups:
                group["lr"] = rate * (1 - step / steps)
            task.loss(probe, chosen, batch, symbols).backward()
            nn.utils.clip_grad_norm_(probe.parameters(), 1.0)
            optimisers[rate].step()
            optimisers[rate].zero_grad()
    return probes


def _batches(task: ProbeTask, clips: list[Clip], seed: int) -> Iterator[list[Clip]]:
    """All clips in every epoch, those of about the same length together, in random order."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.tensor([float(len(clip.features)) for clip in clips])
    for _ in range(task.epochs):
        order = (lengths * (1 + 0.2 * torch.rand(len(clips), generator=generator))).argsort()
        batches = order.split(task.clips_per_batch)
        for index in torch.randperm(len(batches), generator=generator).tolist():
            yield [clips[i] for i in batches[index].tolist()]
