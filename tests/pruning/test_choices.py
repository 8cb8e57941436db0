"""The gates that a run keeps and their values afterwards: learned ones, and those of each control.

Nothing is trained here but by hand, so that what surgery leaves can be told in advance.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import slimvox
from slimvox.encoder import SpeechEncoder
from slimvox.pruning import stage
from slimvox.pruning.gates.hard_concrete import typical_open_value
from slimvox.structures.kept_indices import KeptIndices
from tiny_runs import make_run

ONLY_INTERMEDIATE = {
    "structures.conv": False,
    "structures.head": False,
    "structures.qk": False,
    "structures.vo": False,
    "structures.intermediate": True,
    "prune.steps": 1,
    "finish.steps": 0,
    "gates.ramp_steps": 1,
}
KEEP = 0.85
SOFT = {"gates.initial_drop": 0.6}
"""Gates that would be worth less than 1 if a control took their values."""


def weights(encoder: SpeechEncoder, layer: int, kept: tuple[int, ...] | None = None) -> tuple[Tensor, Tensor]:
    """The two maps of a feed-forward block, of the kept dimensions."""
    block: Any = encoder.layers[layer].feed_forward
    first, second = block.intermediate_dense.weight.detach(), block.output_dense.weight.detach()
    return (first, second) if kept is None else (first[list(kept)], second[:, list(kept)])


def kept_intermediate(out: Path) -> list[tuple[int, ...]]:
    """Kept feed-forward dimensions of each layer."""
    dense = slimvox.load(out).dense_anatomy
    kept = KeptIndices.from_dict(json.loads((out / "kept_indices.json").read_text()), dense)
    return [kept["intermediate", index] for index in range(len(dense.layers))]


def without_training(patch: pytest.MonkeyPatch, log_alpha: Tensor | None = None) -> None:
    """Steps do nothing; gates, if there are any, are set by hand."""

    def step(self: stage.Stage, batches: object) -> tuple[dict[str, float], float]:
        if self.student.gates is not None and log_alpha is not None:
            self.student.gates.log_alpha.data.copy_(log_alpha)
        return {"loss": 0.0, "distillation": 0.0}, 0.0

    patch.setattr(stage.Stage, "_train_step", step)


@pytest.mark.parametrize("final_values", ["soft", "one"])
def test_the_most_open_gates_stay_with_the_value_of_the_recipe(
    final_values: str, teacher: Path, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dense = slimvox.load(teacher)
    widths = [layer.intermediate for layer in dense.anatomy.layers]
    log_alpha = 2 * torch.randn(sum(widths), generator=torch.Generator().manual_seed(0))
    without_training(monkeypatch, log_alpha)
    result = make_run(
        tmp_path / "out",
        teacher,
        speech,
        settings={**ONLY_INTERMEDIATE, "gates.final_values": final_values},
        target_parameters=KEEP,
    )
    layers = kept_intermediate(tmp_path / "out")
    chosen = torch.zeros(len(log_alpha), dtype=torch.bool)
    for number, (kept, width) in enumerate(zip(layers, widths, strict=True)):
        assert kept
        chosen[torch.tensor(kept) + number * width] = True
        first, second = weights(dense, number, kept)
        value = typical_open_value(log_alpha[number * width :][list(kept)])
        if final_values == "soft":
            assert float(value.min()) < 0.95
            second = second * value
        torch.testing.assert_close(weights(result.encoder, number)[0], first)
        torch.testing.assert_close(weights(result.encoder, number)[1], second)
    assert 0.1 < float(chosen.float().mean()) < 0.9
    # One feed-forward dimension costs as much as another, so it is the threshold alone that tells.
    assert float(log_alpha[chosen].min()) > float(log_alpha[~chosen].max())


def test_magnitude_keeps_the_largest_weights_as_they_are(
    teacher: Path, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dense = slimvox.load(teacher)
    without_training(monkeypatch)
    result = make_run(
        tmp_path / "out",
        teacher,
        speech,
        settings={**ONLY_INTERMEDIATE, **SOFT},
        target_parameters=KEEP,
        control="magnitude",
    )
    largest_cut, smallest_kept = 0.0, float("inf")
    for number, indices in enumerate(kept_intermediate(tmp_path / "out")):
        first, second = weights(dense, number)
        size = first.norm(dim=1) * second.norm(dim=0)
        kept = torch.zeros(len(size), dtype=torch.bool)
        kept[list(indices)] = True
        largest_cut = max([largest_cut, *size[~kept].tolist()])
        smallest_kept = min([smallest_kept, *size[kept].tolist()])
        for ours, its in zip(weights(result.encoder, number), weights(dense, number, indices), strict=True):
            torch.testing.assert_close(ours, its)
    assert 0 < largest_cut < smallest_kept < float("inf")


def test_random_gates_differ_from_seed_to_seed_and_their_weights_are_the_teachers(
    teacher: Path, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_training(monkeypatch)
    dense, kept = slimvox.load(teacher), {}
    for name, seed in (("first", 0), ("other", 1)):
        result = make_run(
            tmp_path / name,
            teacher,
            speech,
            settings={**ONLY_INTERMEDIATE, **SOFT},
            target_parameters=KEEP,
            control="random",
            seed=seed,
        )
        kept[name] = kept_intermediate(tmp_path / name)
        for number, indices in enumerate(kept[name]):
            for ours, its in zip(
                weights(result.encoder, number), weights(dense, number, indices), strict=True
            ):
                torch.testing.assert_close(ours, its)
    assert kept["first"] != kept["other"]
    # Drawn evenly: every layer loses some, none loses all.
    for indices, layer in zip(kept["first"], dense.anatomy.layers, strict=True):
        assert 0 < len(indices) < layer.intermediate


def test_dropped_layers_are_the_last_and_the_others_are_the_teachers(
    teacher: Path, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_training(monkeypatch)
    dense = slimvox.load(teacher)
    settings = {"prune.steps": 1, "finish.steps": 0, "gates.ramp_steps": 1}
    result = make_run(
        tmp_path / "out", teacher, speech, settings=settings, target_parameters=0.75, control="top-layers"
    )
    whole, (first, *_, last) = dense.anatomy.layers[0], result.encoder.anatomy.layers
    assert first.intermediate == whole.intermediate and len(first.heads) == len(whole.heads)
    assert (first.qk, first.vo) == (whole.qk, whole.vo)
    # What is left of the budget is too little for the next layer: only crumbs of it stay.
    assert last.intermediate < 0.2 * whole.intermediate and last.vo < 0.2 * whole.vo
    assert result.encoder.anatomy.convolutions == dense.anatomy.convolutions
    assert torch.equal(weights(result.encoder, 0)[0], weights(dense, 0)[0])


def test_a_thin_encoder_begins_with_other_weights(
    teacher: Path, speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_training(monkeypatch)
    dense = slimvox.load(teacher)
    results = [
        make_run(
            tmp_path / str(seed),
            teacher,
            speech,
            settings=ONLY_INTERMEDIATE,
            target_parameters=KEEP,
            control="thin",
            seed=seed,
        )
        for seed in (0, 1)
    ]
    kept = kept_intermediate(tmp_path / "0")[0]
    first, other = (weights(result.encoder, 0)[0] for result in results)
    assert first.shape == other.shape == (len(kept), dense.anatomy.width)
    for one, two in ((first, other), (first, weights(dense, 0, kept)[0])):
        assert abs(float(torch.corrcoef(torch.stack([one.flatten(), two.flatten()]))[0, 1])) < 0.2
    widths = [layer.intermediate for layer in results[0].encoder.anatomy.layers]
    assert max(widths) - min(widths) <= 1
