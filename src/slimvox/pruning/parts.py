"""Parts of a run that a researcher can replace without touching the package."""

from __future__ import annotations

from collections.abc import Sequence

from slimvox.audio import AudioInput
from slimvox.costs import Cost, CostContext, cost_kind
from slimvox.pruning.callbacks import Callback
from slimvox.pruning.data import RunAudio, gather_audio
from slimvox.pruning.distillation import Distillation, distilled_layers
from slimvox.pruning.gates import Gates
from slimvox.pruning.recipe import Recipe
from slimvox.structures.anatomy import EncoderAnatomy


class PruningParts:
    """Builds the parts of a run from its recipe; override methods to build others."""

    callbacks: Sequence[Callback] = ()
    """Callbacks called after training steps."""

    def build_gates(self, anatomy: EncoderAnatomy, recipe: Recipe) -> Gates:
        """The gates of the encoder to be pruned; also called before the run starts, to check that its target can be
        reached with them.
        """
        return Gates(
            anatomy,
            recipe.pruned_structures,
            initial_drop=recipe.gates.initial_drop,
            initial_drops=recipe.gates.initial_drops,
            straight_through=recipe.gates.straight_through,
        )

    def build_distillation(self, anatomy: EncoderAnatomy, recipe: Recipe) -> Distillation:
        """The distillation loss for a teacher with an anatomy, with untrained maps."""
        settings = recipe.distillation
        return Distillation(
            anatomy.width,
            distilled_layers(len(anatomy.layers), settings.layers),
            weights=settings.weights,
            maps=settings.maps,
            group_means=settings.targets == "groups",
        )

    def build_cost(self, kind: str, context: CostContext) -> Cost:
        """The cost that the budget limits; called for measured kinds in the main process only."""
        return cost_kind(kind).prepare(context)

    def build_audio(
        self, sources: Sequence[AudioInput], recipe: Recipe, seed: int, held_out: Sequence[AudioInput]
    ) -> RunAudio:
        """The audio to train on and the audio that is held out."""
        return gather_audio(sources, recipe.data, seed, held_out)

    @property
    def replaced(self) -> tuple[str, ...]:
        """Qualified names of overridden methods; a run can be resumed only with the same ones."""
        names = ("build_gates", "build_distillation", "build_cost", "build_audio")
        return tuple(
            f"{method.__module__}.{method.__qualname__}"
            for method in (getattr(type(self), name) for name in names)
            if method is not getattr(PruningParts, method.__name__, None)
        )
