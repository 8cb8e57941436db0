"""`slimvox compare`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

from slimvox.cli.command import AUDIO, MODEL, Argument, VerboseOption, command, showing
from slimvox.util.validation import SecondsOrZero

if TYPE_CHECKING:
    from slimvox.comparison.sources import Comparison

WORTH_SAYING = 2.0
"""Minimum ratio of a source's error to the smallest error for which the source is mentioned."""


@command(
    "slimvox.comparison.sources.compare",
    model=MODEL,
    audio=AUDIO,
    teacher=Argument(type=str | None, metavar="MODEL"),
    seconds=Argument(type=SecondsOrZero),
)
class CompareCommand(VerboseOption):
    """Measure the distance between an encoder's hidden states and its teacher's on your audio, source by source.

    A pruned encoder imitates its teacher best on the kind of audio it was pruned on, and less well on other languages
    and domains.
    """

    states: bool = False
    """Print the error of each hidden state as well."""
    json: bool = False
    """Print JSON, with the distances of each hidden state."""

    def run(self, console: Console) -> None:
        """Run the command."""
        with showing("loading") as show:
            result: Comparison = self.call(on_progress=show)
        if self.json:
            print(json.dumps(result.to_dict(), indent=1, allow_nan=False))
            return
        print_comparison(console, result, states=self.states)


def print_comparison(console: Console, result: Comparison, *, states: bool) -> None:
    """Print a row per source, the errors of each hidden state if requested, and the sources with much larger errors."""
    names = _short([source.source for source in result.sources])
    table = Table(
        title=f"{result.model} compared with {result.teacher}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
    )
    table.add_column("audio", overflow="fold")
    for column in ("clips", "seconds", "relative error", "after a map", "1 - cosine", "worst state"):
        table.add_column(column, justify="right")
    for name, source in zip(names, result.sources, strict=True):
        by_state, mean = source.distances.relative_errors, source.distances.mean
        worst = max(range(len(by_state)), key=by_state.__getitem__)
        table.add_row(
            name,
            str(source.clips),
            f"{mean.seconds:.0f}",
            f"{mean.relative_error:.3f}",
            _error(source.distances.mapped_error),
            f"{mean.cosine:.3f}",
            f"{worst} ({by_state[worst]:.3f})",
        )
    console.print(table)
    if states:
        console.print("Relative error of each hidden state, and after a linear map")
        of_states = Table()
        of_states.add_column("state", justify="right")
        for name in names:
            of_states.add_column(name, justify="right", overflow="fold")
        for state in range(len(result.sources[0].distances.relative_errors)):
            pairs = [
                (
                    each.relative_errors[state],
                    None if each.mapped_errors is None else each.mapped_errors[state],
                )
                for each in (source.distances for source in result.sources)
            ]
            cells = (f"{error:.3f}, {_error(mapped)}" for error, mapped in pairs)
            of_states.add_row(str(state), *cells)
        console.print(of_states)
    console.print(
        "Relative error: 0 is a perfect copy, 1 is no better than the teacher's mean. State 0 is the input of the first"
        " layer. After a map: the error that remains after the best linear map of the states, fitted on other clips.",
        soft_wrap=True,
    )
    for name, source in zip(names, result.sources, strict=True):
        if source.skipped:
            counts = ", ".join(f"{count} {reason}" for reason, count in source.skipped.items())
            console.print(f"{name}: skipped {counts}", soft_wrap=True)
        if source.distances.silent_seconds >= 0.1:
            console.print(
                f"{name}: left out {source.distances.silent_seconds:.1f} s of silence in these clips",
                soft_wrap=True,
            )
    errors = {
        name: source.distances.mean.relative_error for name, source in zip(names, result.sources, strict=True)
    }
    nearest = min(errors, key=errors.__getitem__)
    for name, error in errors.items():
        if error > WORTH_SAYING * errors[nearest] > 0:
            console.print(
                f"{name} is {error / errors[nearest]:.1f} times as far from the teacher as {nearest}: to use the"
                " encoder on such audio, include some of it when pruning",
                soft_wrap=True,
            )


def _error(error: float | None) -> str:
    return "-" if error is None else f"{error:.3f}"


def _short(sources: Sequence[str]) -> list[str]:
    """File names in place of paths, if all sources lie in the same folder and their names are unique."""
    names = [Path(source).name for source in sources]
    alike = len({Path(source).parent for source in sources}) == 1 and len(set(names)) == len(names)
    return names if alike and all(names) else list(sources)
