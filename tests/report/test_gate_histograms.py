"""Gate statistics in the log of a run."""

from __future__ import annotations

import json
from pathlib import Path

import torch

import models
import slimvox
from slimvox.pruning.gates import Gates
from slimvox.pruning.gates.gates import BINS, gate_histograms
from slimvox.pruning.gates.hard_concrete import open_probability
from slimvox.structures import structure_names


def test_histograms_count_every_gate_in_its_bin(tmp_path: Path) -> None:
    encoder = slimvox.load(models.directory(tmp_path, "hubert"))
    gates = Gates(encoder.anatomy, frozenset(structure_names()))
    with torch.no_grad():
        gates.log_alpha.normal_(0, 3)
        gates.log_alpha[:2] = torch.tensor([-50.0, 50.0])
    histograms = gate_histograms(gates)
    probability = open_probability(gates.log_alpha.detach())
    for structure in structure_names():
        parts = [
            probability[part]
            for address, part in gates.layout.slices.items()
            if address.structure == structure
        ]
        bins = (torch.cat(parts) * BINS).long().clamp(max=BINS - 1)
        assert histograms[structure] == torch.bincount(bins, minlength=BINS).tolist()
    assert sum(map(sum, histograms.values())) == gates.log_alpha.numel()


def test_the_log_has_the_first_and_the_last(learned: Path) -> None:
    records = [json.loads(line) for line in (learned / "run" / "log.jsonl").read_text().splitlines()]
    prune = [record for record in records if record["stage"] == "prune"]
    assert "gates" in prune[0] and "gates" in prune[-1]
    assert not [record for record in records if record["stage"] == "finish" and "gates" in record]
    size = {structure: sum(counts) for structure, counts in prune[0]["gates"].items()}
    assert size == {structure: sum(counts) for structure, counts in prune[-1]["gates"].items()}
    # Gates start open.
    assert all(counts[-1] == sum(counts) for counts in prune[0]["gates"].values())
