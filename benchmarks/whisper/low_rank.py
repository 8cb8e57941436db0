"""Low-rank maps by principal components of activations, as in LiteASR, written anew.

Kamahori et al., "LiteASR: Efficient Automatic Speech Recognition with Low-Rank Approximation" (EMNLP 2025): the outputs
y = W x + b of a linear map lie near a subspace. With their mean m and first k principal components V (out, k),
y is replaced by V (V^T W x) + (V V^T (b - m) + m), at k (in + out) multiplications instead of in * out. Every map keeps
as many components as explain one and the same share of its variance; a map that would not get cheaper stays as it is.
The share is found by bisection, so that the encoder has a given number of multiply-accumulates. (LiteASR also computes
the attention scores in fewer dimensions, where the rank is below the width of a head; this is left out.)
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from slimvox.costs import macs
from slimvox.encoder import SpeechEncoder

MAPS = (
    "attention.q_proj",
    "attention.k_proj",
    "attention.v_proj",
    "attention.out_proj",
    "feed_forward.intermediate_dense",
    "feed_forward.output_dense",
)
"""Linear maps of a layer."""


@dataclass(frozen=True, kw_only=True)
class Components:
    """Principal components of the outputs of a linear map."""

    mean: Tensor
    """(outputs,)."""
    vectors: Tensor
    """(outputs, outputs), a component in each column, that of the largest variance first."""
    explained: Tensor
    """Share of the variance that the first 1, 2, ... components explain (outputs,)."""

    def rank(self, share: float) -> int:
        """Number of components that explain a share of the variance."""
        return min(len(self.explained), int((self.explained < share).sum()) + 1)


@torch.no_grad()
def principal_components(encoder: SpeechEncoder, waveforms: Iterable[Tensor]) -> dict[str, Components]:
    """Components of all maps by name, measured on waveforms (batch, samples)."""
    maps = {
        f"layers.{index}.{name}": encoder.get_submodule(f"layers.{index}.{name}")
        for index in range(len(encoder.layers))
        for name in MAPS
    }
    sums: dict[str, tuple[Tensor, Tensor, int]] = {}

    def collect(name: str, outputs: Tensor) -> None:
        rows = outputs.flatten(0, -2).double()
        total, products, count = sums.get(name, (0.0, 0.0, 0))
        sums[name] = (total + rows.sum(0), products + rows.T @ rows, count + len(rows))

    hooks = [
        module.register_forward_hook(lambda _module, _inputs, outputs, name=name: collect(name, outputs))
        for name, module in maps.items()
    ]
    try:
        for batch in waveforms:
            encoder(batch)
    finally:
        for hook in hooks:
            hook.remove()
    found = {}
    for name, (total, products, count) in sums.items():
        mean = total / count
        variances, vectors = torch.linalg.eigh(products / count - torch.outer(mean, mean))
        variances = variances.flip(0).clamp_min(0)
        found[name] = Components(
            mean=mean, vectors=vectors.flip(1), explained=variances.cumsum(0) / variances.sum()
        )
    return found


def ranks_for(
    encoder: SpeechEncoder, components: Mapping[str, Components], *, keep: float, seconds: float
) -> dict[str, int]:
    """Rank of each map that gets cheaper, so that a share of the multiply-accumulates is kept.

    Raises:
        ValueError: if even rank 1 everywhere keeps more.
    """
    most = keep * macs(encoder.anatomy, seconds)
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if low_rank_macs(encoder, _cheaper(encoder, components, middle), seconds) > most:
            high = middle
        else:
            low = middle
    ranks = _cheaper(encoder, components, low)
    if low_rank_macs(encoder, ranks, seconds) > most:
        raise ValueError(f"no ranks keep {keep:.0%} of the multiply-accumulates")
    return ranks


def _cheaper(encoder: SpeechEncoder, components: Mapping[str, Components], share: float) -> dict[str, int]:
    found = {}
    for name, each in components.items():
        outputs, inputs = encoder.get_submodule(name).weight.shape
        rank = each.rank(share)
        if rank * (outputs + inputs) < outputs * inputs:
            found[name] = rank
    return found


def low_rank_macs(encoder: SpeechEncoder, ranks: Mapping[str, int], seconds: float) -> int:
    """Multiply-accumulates of an encoder whose maps have these ranks; `encoder` has its full maps."""
    frames = encoder.anatomy.frames(round(seconds * 16_000))
    saved = 0
    for name, rank in ranks.items():
        outputs, inputs = encoder.get_submodule(name).weight.shape
        saved += frames * (outputs * inputs - rank * (outputs + inputs))
    return macs(encoder.anatomy, seconds) - saved


def factorised(
    encoder: SpeechEncoder, ranks: Mapping[str, int], components: Mapping[str, Components] | None = None
) -> SpeechEncoder:
    """A copy of the encoder with two maps in place of each that has a rank.

    Args:
        encoder: encoder with its full maps.
        ranks: rank by name of the map.
        components: components that give the weights; None to leave them random, to be loaded afterwards.
    """
    smaller = copy.deepcopy(encoder)
    for name, rank in ranks.items():
        parent, _, own = name.rpartition(".")
        full = encoder.get_submodule(name)
        outputs, inputs = full.weight.shape
        pair = nn.Sequential(nn.Linear(inputs, rank, bias=False), nn.Linear(rank, outputs))
        if components is not None:
            mean, vectors = components[name].mean, components[name].vectors[:, :rank]
            bias = torch.zeros(outputs) if full.bias is None else full.bias.detach()
            with torch.no_grad():
                pair[0].weight.copy_(vectors.T @ full.weight.double())
                pair[1].weight.copy_(vectors)
                pair[1].bias.copy_(vectors @ (vectors.T @ (bias.double() - mean)) + mean)
        setattr(smaller.get_submodule(parent), own, pair)
    return smaller
