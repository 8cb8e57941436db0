"""`slimvox prune`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import tyro
from rich.console import Console

from slimvox.cli.command import AUDIO, MODEL, Argument, VerboseOption, command

if TYPE_CHECKING:
    from slimvox.pruning import PruneResult

AMOUNT = Argument(metavar="AMOUNT")


@command(
    "slimvox.pruning.pruner.prune",
    model=MODEL,
    audio=AUDIO,
    recipe=Argument(type=str | None, metavar="RECIPE"),
    overrides=Argument(type=tuple[str, ...], name="set", metavar="FIELD=VALUE"),
    target_parameters=AMOUNT,
    target_macs=AMOUNT,
    target_speed=Argument(metavar="SPEED-UP"),
    runtime=Argument(metavar="RUNTIME"),
    latency_table=Argument(metavar="FILE"),
    sizes=Argument(metavar="SHARE,SHARE,..."),
    held_out=Argument(type=tuple[str, ...], metavar="AUDIO..."),
)
class PruneCommand(VerboseOption):
    """Prune a speech encoder on unlabelled audio.

    Learns which structures to remove while distilling the encoder, removes them, and distils the smaller encoder.
    Ctrl-C saves a checkpoint; the same command resumes from it, or shows the result again if the run is finished.
    """

    if TYPE_CHECKING:
        out: Path

    push_to_hub: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Repository on the Hugging Face hub, such as me/wavlm-small, to upload the pruned encoder to; with --sizes, one
    for each, such as me/wavlm-small-keep-28."""

    imports: ClassVar[tuple[str, ...]] = ("slimvox.cli.tables",)

    def run(self, console: Console) -> None:
        """Run the command."""
        from slimvox.cli.tables import prune_summary, sizes_summary
        from slimvox.pruning import RunInterrupted

        if os.environ.get("RANK", "0") != "0":
            # Only the first of several processes prints.
            console = Console(quiet=True)
        if self.push_to_hub is not None:
            from slimvox.checkpoint import check_repository_name

            check_repository_name(self.push_to_hub)
        try:
            result: PruneResult = self.call(console=console)
        except RunInterrupted as interruption:
            console.print(f"\nstopped and saved; the same command resumes the run ({self.out})")
            raise SystemExit(130) from interruption
        if result.sizes:
            sizes_summary(console, result.sizes)
        else:
            prune_summary(console, result)
        if self.push_to_hub is not None and not console.quiet:
            self._push(self.push_to_hub, console, result)

    def _push(self, name: str, console: Console, result: PruneResult) -> None:
        from slimvox.checkpoint import push_directory

        for each in result.sizes or (result,):
            suffix = f"-{each.directory.name}" if result.sizes else ""
            url = push_directory(each.directory, name + suffix, commit_message="Upload pruned speech encoder")
            console.print(f"pushed to {url}", soft_wrap=True)
