"""`slimvox evaluate`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from slimvox.cli.command import MODEL, Argument, VerboseOption, command, showing
from slimvox.util.errors import SlimvoxError

if TYPE_CHECKING:
    from slimvox.evaluation.run import Evaluation


def _manifests(texts: Sequence[str]) -> dict[str, tuple[Path, ...]]:
    found: dict[str, tuple[Path, ...]] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals or not path:
            raise SlimvoxError(
                f"`--manifest` must be TASK=FILE, such as ks=commands.tsv, but is {text!r} instead"
            )
        found[name] = (*found.get(name, ()), Path(path))
    return found


@command(
    "slimvox.evaluation.run.evaluate",
    model=MODEL,
    tasks=Argument(metavar="TASK..."),
    manifests=Argument(name="manifest", type=tuple[str, ...], metavar="TASK=FILE", parse=_manifests),
    cache=Argument(type=str, metavar="none|auto|DIR"),
    against=Argument(type=str | None, metavar="MODEL|DIR"),
    overrides=Argument(name="set", metavar="TASK.FIELD=VALUE"),
)
class EvaluateCommand(VerboseOption):
    """Score a frozen encoder on SUPERB's ten tasks, or on mini-SUPERB, the same tasks on small sets.

    Features are computed once and cached. For each task a head is trained on them, with the learning rate that scores
    best on dev. The same command resumes where an earlier one stopped.
    """

    if TYPE_CHECKING:
        model: str

    json: bool = False
    """Print the results as JSON instead of a table."""

    def run(self, console: Console) -> None:
        """Run the command."""
        from slimvox.evaluation.result_table import print_differences, print_plan, print_table

        with showing(self.model) as show:
            evaluation: Evaluation = self.call(on_progress=show)
        if self.json:
            print(json.dumps(evaluation.to_dict(), indent=1, allow_nan=False))
            return
        if evaluation.plan:
            print_plan(console, evaluation.plan)
            return
        print_table(console, evaluation.results)
        for name, value in evaluation.overall.items():
            half = evaluation.half_widths.get(name)
            console.print(f"{name}: {value:.1f}" + ("" if half is None else f" ± {half:.1f}"))
        if evaluation.against is not None:
            print_differences(console, (self.model, evaluation.against), evaluation.differences)
