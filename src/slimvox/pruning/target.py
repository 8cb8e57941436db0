"""Budget of a run, from the requested target."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from slimvox.costs import Cost, Parameters
from slimvox.costs.counted import SECONDS
from slimvox.encoder import SpeechEncoder
from slimvox.measure.latency import LatencyTable
from slimvox.measure.latency.table import TORCH, check_clip
from slimvox.pruning.budget import Budget
from slimvox.pruning.gates import GateLayout, check_reachable, smallest_cost
from slimvox.pruning.gates.final import or_more_structures
from slimvox.pruning.parts import PruningParts
from slimvox.pruning.recipe import Recipe
from slimvox.pruning.settings import TargetSettings
from slimvox.util.errors import SlimvoxError
from slimvox.util.quantities import parse_amount, parse_shares, parse_speed


@dataclass(frozen=True, kw_only=True)
class TargetRequest:
    """Target requested instead of the recipe's: at most one of `parameters`, `macs`, `speed` and `sizes`."""

    parameters: str | float | None = None
    """Parameters to keep: a share of the dense encoder ("28%", 0.28) or a number ("26.5M")."""
    macs: str | float | None = None
    """Multiply-accumulates to keep, in the same form: a share of those of the recipe's clip length, or a number for
    10 s of audio."""
    speed: str | float | None = None
    """Speed-up over the dense encoder ("4x", 4)."""
    runtime: str | None = None
    """Runtime of that speed-up, in place of the recipe's."""
    table: LatencyTable | None = None
    """Table that predicts time, in place of one that is measured on this machine."""
    sizes: tuple[float, ...] | None = None
    """Several shares of the dense encoder to keep, of the recipe's kind, largest first (`parse_sizes`)."""

    def __post_init__(self) -> None:
        asked = [each is not None for each in (self.parameters, self.macs, self.speed, self.sizes)]
        if sum(asked) > 1:
            raise SlimvoxError(
                "give only one of `target_parameters`, `target_macs`, `target_speed` and `sizes`; for sizes in MACs,"
                " use `--set target.kind=macs`"
            )

    def settings(self, recipe: TargetSettings) -> TargetSettings:
        """The recipe's settings with the requested kind, for a speed also the share, and with a table its conditions.

        Raises:
            SlimvoxError: if a table is given for a target that is not in time, or with another runtime.
        """
        runtime = recipe.runtime if self.runtime is None else self.runtime
        if self.parameters is not None:
            settings = replace(recipe, kind="params", runtime=self.runtime or "")
        elif self.macs is not None:
            is_share = parse_amount(str(self.macs), "target_macs").is_share
            seconds = recipe.seconds if is_share else SECONDS
            settings = replace(recipe, kind="macs", seconds=seconds, runtime=self.runtime or "")
        elif self.speed is not None:
            keep = 1 / parse_speed(str(self.speed), "target_speed")
            settings = replace(recipe, kind="latency", keep=keep, runtime=runtime)
        else:
            settings = replace(recipe, runtime=runtime)
        if self.table is None:
            return settings
        if settings.kind != self.table.kind:
            raise SlimvoxError(
                "`latency_table` needs a target in time: `target_speed`, or target.kind=latency for `sizes`"
            )
        if settings.runtime not in ("", self.table.runtime):
            raise SlimvoxError(
                f"`latency_table` was measured in {self.table.runtime}: leave out the runtime {settings.runtime}, or"
                " measure a table in it with `slimvox latency`"
            )
        runtime = "" if self.table.runtime == TORCH else self.table.runtime
        return replace(settings, seconds=self.table.seconds, runtime=runtime)

    def shares_of(self, whole: int, cost: Cost, otherwise: float) -> tuple[float, ...]:
        """Shares of the dense encoder's cost `whole` to keep, one per size, largest first."""
        if self.sizes is not None:
            return self.sizes
        asked = self.macs if self.parameters is None else self.parameters
        if asked is None:
            return (otherwise,)
        name = "target_macs" if self.parameters is None else "target_parameters"
        amount = parse_amount(str(asked), name).of(whole)
        if not 0 < amount < whole:
            raise SlimvoxError(
                f"`{name}` must be below what the dense encoder has, {cost.describe(whole)}, but is"
                f" {cost.describe(amount)} instead"
            )
        return (amount / whole,)


def parse_sizes(sizes: str | float | Sequence[str | float]) -> tuple[float, ...]:
    """Shares of the dense encoder to keep, largest first, from text or numbers ("50%,28%", [0.5, 0.28], 0.5).

    Raises:
        SlimvoxError: if there are none, one is not a share, or one occurs twice.
    """
    several = sizes if isinstance(sizes, Iterable) and not isinstance(sizes, str) else str(sizes).split(",")
    texts = list(map(str, several))
    return parse_shares([text for text in texts if text.strip()], "sizes")


def plan_sizes(
    recipe: Recipe,
    encoder: SpeechEncoder,
    request: TargetRequest,
    parts: PruningParts,
    prepare: Callable[[TargetSettings], Cost],
) -> tuple[tuple[Recipe, Budget], ...]:
    """Recipe and budget of each size, largest first, with the requested target.

    Args:
        recipe: the recipe.
        encoder: encoder to be pruned.
        request: target requested by the caller.
        parts: parts of the run, which build the gates.
        prepare: function that returns the cost that a target limits; it may measure the machine.

    Raises:
        SlimvoxError: if the target makes no sense or cannot be reached.
    """
    settings = request.settings(recipe.target)
    # A latency table, and MACs as a number, have clips of their own.
    if (
        settings.kind != Parameters.kind
        and settings.seconds == recipe.target.seconds
        and request.table is None
    ):
        check_clip(encoder.dense_anatomy, settings.seconds, "`target.seconds`")
    layout = parts.build_gates(encoder.anatomy, replace(recipe, target=settings)).layout
    cost = prepare(settings)
    whole = cost.of_dense(encoder.dense_anatomy)
    planned = []
    for share in request.shares_of(whole, cost, settings.keep):
        budget = Budget(
            cost=cost,
            target=share * whole,
            dense_cost=cost.of(encoder.anatomy),
            round_to=settings.round_to,
            fast_widths=settings.fast_widths,
        )
        if budget.target >= budget.dense_cost:
            raise SlimvoxError(
                f"the target of {cost.describe(budget.target)} is not below the present cost of this encoder,"
                f" {cost.describe(budget.dense_cost)}; give a smaller target"
            )
        if settings.kind == LatencyTable.kind:
            _check_speed(layout, budget, whole)
        check_reachable(layout, budget)
        planned.append((replace(recipe, target=replace(settings, keep=share)), budget))
    return tuple(planned)


def _check_speed(layout: GateLayout, budget: Budget, whole: int) -> None:
    """Raise `SlimvoxError` if a speed-up over a dense encoder that takes time `whole` is out of reach."""
    smallest = smallest_cost(layout, budget)
    if smallest > budget.target:
        largest = math.floor(10 * whole / max(1, smallest)) / 10
        raise SlimvoxError(
            f"the target of {whole / budget.target:,.4g}x cannot be reached: the largest speed-up with the structures"
            f" chosen is {largest:g}x ({budget.cost.describe(smallest)}); ask for less"
            f"{or_more_structures(layout)}"
        )
