"""`slimvox evaluate`."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro
from rich.console import Console

from slimvox.cli.help import readable_help
from slimvox.cli.options import ModelOptions
from slimvox.util.errors import SlimvoxError
from slimvox.util.validation import Count, Range


@readable_help
@dataclass(frozen=True, kw_only=True)
class EvaluateCommand(ModelOptions):
    """Score a frozen encoder on SUPERB's ten tasks, or on mini-SUPERB, the same tasks on small sets.

    Features are computed once and cached; a head is trained on them per task, its learning rate chosen on dev.
    The same command resumes where an earlier one stopped.
    """

    model: tyro.conf.Positional[str]
    """Encoder: `embedded`, a directory, a model id on the Hugging Face hub, a file written by `slimvox export`,
    `fbank` (log-mel baseline), or random:MODEL (random weights)."""
    data: Path
    """Data folder; docs/evaluation.md describes its layout."""
    suite: Literal["mini", "official"] = "mini"
    """Data and protocol: `mini` (small sets, short training) or `official`. Scores of the two are not comparable."""
    tasks: Annotated[tuple[str, ...], tyro.conf.arg(metavar="TASK...")] = ()
    """Tasks to run, by their names in docs/evaluation.md; by default, all that the suite has data for."""
    manifest: Annotated[tuple[str, ...], tyro.conf.arg(metavar="TASK=FILE")] = ()
    """Tables with your own data, such as `--manifest ks=commands.tsv`; by default, only their tasks are run."""
    seeds: Count = 1
    """Number of heads trained at the best learning rate, for the mean and standard deviation."""
    set: Annotated[tuple[str, ...], tyro.conf.arg(metavar="TASK.FIELD=VALUE")] = ()
    """Override fields of the protocol, such as `--set ks.steps=2000 sid.learning_rates=0.1,0.01`."""
    out: Path | None = None
    """Output folder with one JSON file per task; finished tasks are not repeated."""
    cache: Path = field(
        default_factory=lambda: (
            Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "slimvox" / "features"
        )
    )
    """Cache folder for features."""
    cache_gib: Annotated[float, Range(above=0, at_most=1e9)] = 8.0
    """Maximum size of the cache in GiB; the least recently used features are removed."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Device for encoding and for training heads; `auto` selects a GPU if there is one."""
    json: bool = False
    """Print the results as JSON instead of a table."""

    imports: ClassVar = ("slimvox.evaluation.run",)

    def run(self, console: Console) -> None:
        """Run the command."""
        from slimvox.evaluation.result_table import print_table
        from slimvox.evaluation.run import evaluate

        with Console(stderr=True).status(self.model) as status:
            evaluation = evaluate(
                self.at_revision(self.model),
                self.data,
                suite=self.suite,
                tasks=self.tasks,
                manifests=self._manifests(),
                seeds=self.seeds,
                overrides=self.set,
                out=self.out,
                cache=self.cache,
                cache_gib=self.cache_gib,
                device=self.device,
                on_progress=status.update,
            )
        if self.json:
            print(json.dumps(evaluation.to_dict(), indent=1))
            return
        print_table(console, evaluation.results)
        for name, value in evaluation.overall.items():
            console.print(f"{name}: {value:.1f}")

    def _manifests(self) -> dict[str, tuple[Path, ...]]:
        found: dict[str, tuple[Path, ...]] = {}
        for text in self.manifest:
            name, equals, path = text.partition("=")
            if not equals or not path:
                raise SlimvoxError(
                    f"`--manifest` must be TASK=FILE, such as ks=commands.tsv, but is {text!r} instead"
                )
            found[name] = (*found.get(name, ()), Path(path))
        return found
