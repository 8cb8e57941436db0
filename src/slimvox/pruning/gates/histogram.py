"""Histograms of the probabilities of being open, by structure."""

from __future__ import annotations

import torch

from slimvox.pruning.gates.gates import Gates
from slimvox.pruning.gates.hard_concrete import open_probability

BINS = 20
"""Number of bins of equal width over P(z > 0) from 0 to 1."""


@torch.no_grad()
def gate_histograms(gates: Gates) -> dict[str, list[int]]:
    """By structure, how many gates have which probability of being open.

    Returns:
        For each structure that is gated `BINS` counts, from surely closed to surely open; over all layers.
    """
    probability = open_probability(gates.log_alpha.detach().float()).cpu()
    return {
        structure: torch.histc(part, BINS, 0.0, 1.0).int().tolist()
        for structure, part in gates.layout.by_structure(probability).items()
    }
