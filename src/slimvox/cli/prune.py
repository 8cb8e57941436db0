"""`slimvox prune`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import tyro
from rich.console import Console

from slimvox.cli.help import readable_help
from slimvox.cli.options import ModelOptions
from slimvox.util.validation import Count, SecondsOrZero, Seed

if TYPE_CHECKING:
    from slimvox.pruning import PruneResult


@readable_help
@dataclass(frozen=True, kw_only=True)
class PruneCommand(ModelOptions):
    """Prune a speech encoder on unlabelled audio.

    Learns which structures to remove while distilling the encoder, removes them, and distils the smaller encoder.
    Ctrl-C saves a checkpoint; the same command resumes from it, or shows the result again if the run is finished.
    """

    model: tyro.conf.Positional[str]
    """Teacher: `embedded`, a local directory, or a model id on the Hugging Face hub such as
    microsoft/wavlm-base-plus."""
    audio: tyro.conf.Positional[tuple[str, ...]]
    """Audio sources: files, folders, lists (.txt), manifests (.tsv, .csv, .jsonl), or Hugging Face data sets (hf:NAME,
    hf:NAME:CONFIGURATION:SPLIT, .parquet, a save_to_disk folder)."""
    out: Path
    """Output directory for the pruned encoder; new, empty, or of the same run."""
    recipe: Annotated[str | None, tyro.conf.arg(metavar="RECIPE")] = None
    """Recipe: default, paper, fast, quick, or a TOML file. By default, quick for the embedded teacher, else default."""
    target_parameters: Annotated[str | None, tyro.conf.arg(metavar="AMOUNT")] = None
    """Parameters to keep: a share of the dense encoder (28%) or a number (26.5M)."""
    target_macs: Annotated[str | None, tyro.conf.arg(metavar="AMOUNT")] = None
    """Multiply-accumulates to keep: a share (20%) or a number (15G, for 10 s of audio)."""
    target_speed: Annotated[str | None, tyro.conf.arg(metavar="SPEED-UP")] = None
    """Speed-up over the dense encoder (4x), in float32 on this machine; the measurement takes about a minute."""
    sizes: Annotated[str | None, tyro.conf.arg(metavar="SHARE,SHARE,...")] = None
    """Several encoders from one run, instead of a single target: shares to keep (50%,28%,15%) of the dense encoder's
    parameters, or of the cost that the recipe counts. Each gets a directory in OUT, such as OUT/keep-28."""
    set: Annotated[tuple[str, ...], tyro.conf.arg(metavar="FIELD=VALUE")] = ()
    """Override fields of the recipe, such as `--set prune.steps=1000 structures.conv=false`."""
    held_out: Annotated[tuple[str, ...], tyro.conf.arg(metavar="AUDIO...")] = ()
    """Audio for measuring the distance to the teacher; by default, a part of AUDIO is held out."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Training device; `auto` selects a GPU if there is one."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """Precision of the activations; weights and gates stay float32."""
    max_steps: Count | None = None
    """Maximum number of training steps over both stages (with --sizes: stage 1 and each stage 2); targets are still
    met."""
    seed: Seed = 0
    """Random seed for gates, batches, crops and baselines."""
    control: Literal["random", "magnitude", "top-layers", "thin"] | None = None
    """Baseline instead of learned gates: random gates, the smallest weights removed, layers removed from the top, or an
    evenly thin encoder trained from scratch."""
    checkpoint_seconds: SecondsOrZero = 300.0
    """Seconds between checkpoints."""

    push_to_hub: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """Repository on the Hugging Face hub, such as me/wavlm-small, to upload the pruned encoder to; with `--sizes`, one
    for each, such as me/wavlm-small-keep-28."""

    imports: ClassVar = ("slimvox.pruning", "slimvox.cli.tables")

    def run(self, console: Console) -> None:
        """Run the command."""
        from slimvox.pruning import RunInterrupted, prune

        if os.environ.get("RANK", "0") != "0":
            # Of several processes, the first speaks for all.
            console = Console(quiet=True)
        try:
            result = prune(
                self.at_revision(self.model),
                self.audio,
                self.out,
                recipe=self.recipe,
                overrides=self.set,
                target_parameters=self.target_parameters,
                target_macs=self.target_macs,
                target_speed=self.target_speed,
                sizes=self.sizes,
                held_out=self.held_out,
                device=self.device,
                precision=self.precision,
                max_steps=self.max_steps,
                seed=self.seed,
                control=self.control,
                checkpoint_seconds=self.checkpoint_seconds,
                console=console,
            )
        except RunInterrupted as interruption:
            console.print(f"\nstopped and saved; the same command resumes from there ({self.out})")
            raise SystemExit(130) from interruption
        from slimvox.cli.tables import prune_summary, sizes_summary

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
            console.print(f"pushed to {url}", soft_wrap=True, markup=False)
