"""Prune with a structure and a loss that are not part of slimvox, and follow the run with a callback.

The structure removes whole Transformer layers and the loss compares the log energies of frames; docs/extending explains
both, line by line.

    python examples/custom_structure_and_loss.py embedded speech/ --out runs/layers
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

import slimvox
from slimvox.losses import ComparedStates, Loss, register_loss
from slimvox.pruning import Callback, Pruner, TrainingState
from slimvox.structures import Rows, Structure, Term, register_structure, structure
from slimvox.structures.anatomy import EncoderAnatomy
from slimvox.structures.base import with_layer

OUTPUTS = {"attention": "out_proj", "feed_forward": "output_dense"}


class WholeLayers(Structure):
    """Transformer layers, both blocks at once."""

    name = "layer"
    title = "Transformer layers"
    kind = "block"
    contains = ("attention", "feed_forward")

    def spans(self, anatomy: EncoderAnatomy, index: int) -> tuple[int, ...]:
        """One unit where any block is left."""
        layer = anatomy.layers[index]
        return (1,) if layer.attention or layer.feed_forward else ()

    def scaled(self, anatomy: EncoderAnatomy, index: int) -> tuple[Rows, ...]:
        """The output maps of both blocks."""
        return tuple(
            Rows(f"layers.{index}.{block}.{output}.{part}", None)
            for block, output in OUTPUTS.items()
            if getattr(anatomy.layers[index], block)
            for part in ("weight", "bias")
        )

    def shrink(
        self, anatomy: EncoderAnatomy, index: int, kept: tuple[tuple[int, ...], ...]
    ) -> EncoderAnatomy:
        """Remove both blocks of a layer that is not kept."""
        if kept[0]:
            return anatomy
        return with_layer(anatomy, index, attention=False, heads=(), feed_forward=False, intermediate=0)

    def parameters(self, anatomy: EncoderAnatomy, index: int) -> Iterator[Term]:
        """None besides those of the blocks."""
        yield from ()

    def macs(self, anatomy: EncoderAnatomy, index: int, lengths: tuple[int, ...]) -> Iterator[Term]:
        """None besides those of the blocks."""
        yield from ()

    def times(self, anatomy: EncoderAnatomy, index: int, lengths: tuple[int, ...]) -> Iterator[Term]:
        """None besides those of the blocks."""
        yield from ()

    def magnitude(self, parameters: Mapping[str, Tensor], anatomy: EncoderAnatomy, index: int) -> Tensor:
        """Sum of the magnitudes of the blocks."""
        blocks = [
            structure(block).magnitude(parameters, anatomy, index)
            for block in OUTPUTS
            if getattr(anatomy.layers[index], block)
        ]
        return torch.stack(blocks).sum(0)


class LogEnergy(Loss):
    """Mean absolute difference of the log norms of frames, over all comparisons."""

    name = "log_energy"
    title = "Difference of log energies"

    def __call__(self, states: ComparedStates) -> Tensor:
        """The loss, a scalar."""
        terms = []
        for mapped, target, valid, frames in zip(
            states.mapped, states.targets, states.valid, states.frames, strict=True
        ):
            gap = mapped.norm(dim=-1).clamp(min=1e-6).log() - target.norm(dim=-1).clamp(min=1e-6).log()
            terms.append((gap.abs() * valid.squeeze(-1)).sum() / frames)
        return torch.stack(terms).mean()


class PrintLayers(Callback):
    """Prints the number of layers left during training."""

    every = 50

    def on_step(self, state: TrainingState) -> Mapping[str, float] | None:
        """Prune the encoder as the gates are now, and count the layers that are left."""
        left = sum(layer.attention or layer.feed_forward for layer in state.encoder().anatomy.layers)
        print(f"{state.stage} step {state.step} of {state.steps}: {left} layers left")
        return {"layers": left}


PRUNED = ("layer", "intermediate")
KEPT = ("conv", "attention", "feed_forward", "head", "qk", "vo")
OVERRIDES = (
    *(f"structures.{name}=true" for name in PRUNED),
    *(f"structures.{name}=false" for name in KEPT),
    "distillation.weights.log_energy=0.5",
)


def prune(model: str | Path, audio: str | Path, out: Path, overrides: Sequence[str]) -> slimvox.PruneResult:
    """Prune whole layers and feed-forward dimensions, and nothing else."""
    register_structure(WholeLayers())
    register_loss(LogEnergy())
    pruner = Pruner(
        model,
        audio,
        out,
        recipe="quick",
        overrides=[*OVERRIDES, *overrides],
        target_parameters="60%",
        callbacks=[PrintLayers()],
    )
    return pruner.run()


def main() -> None:
    """Read the arguments and prune."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="teacher: embedded, a directory, or a model id on the hub")
    parser.add_argument("audio", help="folder of audio")
    parser.add_argument("--out", type=Path, required=True, help="directory for the pruned encoder")
    parser.add_argument("--set", nargs="*", default=[], help="fields of the recipe, such as prune.steps=1000")
    arguments = parser.parse_args()
    result = prune(arguments.model, arguments.audio, arguments.out, arguments.set)
    anatomy = result.encoder.anatomy
    print(f"{result.parameters:,} of {result.parameters_dense:,} parameters; layers left: ", end="")
    print(*(index + 1 for index, layer in enumerate(anatomy.layers) if layer.attention or layer.feed_forward))


if __name__ == "__main__":
    main()
