"""`prune`, and `Pruner` for runs with replaced parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from slimvox.audio import AudioInput, as_sources, source_name
from slimvox.checkpoint import Model, on_disk
from slimvox.families import families
from slimvox.pruning.accelerator import Precision, build_accelerator, own_accelerate_state
from slimvox.pruning.budget import SparsitySchedule
from slimvox.pruning.callbacks import Callback
from slimvox.pruning.controls import Control
from slimvox.pruning.inputs import check_clips, read_audio, read_latency_table, read_model
from slimvox.pruning.interrupts import StopRequests
from slimvox.pruning.machine_speed import prepare_cost
from slimvox.pruning.memory import Recompute
from slimvox.pruning.parts import PruningParts
from slimvox.pruning.processes import Processes
from slimvox.pruning.recipe import Recipe, load_recipe
from slimvox.pruning.result import PruneResult, RunSettings
from slimvox.pruning.run import Run
from slimvox.pruning.run_directory import RunDirectory
from slimvox.pruning.target import TargetRequest, parse_sizes, plan_sizes
from slimvox.pruning.time_budget import TimeLimit
from slimvox.pruning.trainer import Trainer
from slimvox.util.devices import Device
from slimvox.util.errors import SlimvoxError
from slimvox.util.validation import (
    Count,
    Positive,
    Seconds,
    SecondsOrZero,
    Seed,
    Threads,
    checked_arguments,
)


@checked_arguments
@torch.inference_mode(False)
@torch.enable_grad()
def prune(
    model: Model,
    audio: AudioInput | Sequence[AudioInput] | Mapping[Any, float],
    out: str | Path,
    *,
    recipe: str | Path | Recipe | None = None,
    overrides: str | Sequence[str] | Mapping[str, Any] = (),
    target_parameters: str | float | None = None,
    target_macs: str | float | None = None,
    target_speed: str | float | None = None,
    runtime: str | None = None,
    latency_table: str | Path | None = None,
    sizes: str | float | Sequence[str | float] | None = None,
    held_out: AudioInput | Sequence[AudioInput] = (),
    device: Device = "auto",
    precision: Precision = "auto",
    max_steps: Count | None = None,
    hours: Positive | None = None,
    seed: Seed = 0,
    control: Control | None = None,
    checkpoint_seconds: SecondsOrZero = 300.0,
    workers: Threads | None = None,
    micro_batch_seconds: Seconds | None = None,
    checkpoint_activations: Recompute = "auto",
    revision: str | None = None,
    token: str | None = None,
    console: Console | None = None,
    parts: PruningParts | None = None,
) -> PruneResult:
    """Prune a speech encoder on unlabelled audio; the command `slimvox prune` as a function.

    The same call resumes an interrupted run, and returns the result again if the run is finished.

    Args:
        model: teacher: `embedded`, a local directory, or a model id on the Hugging Face hub such as
            microsoft/wavlm-base-plus; a directory written by slimvox is pruned further. In Python also an encoder or a
            model of `transformers`.
        audio: training audio: files, folders, shards (.tar), lists (.txt), manifests (.tsv, .csv, .jsonl), URLs of
            them, or Hugging Face data sets (hf:NAME, hf:NAME:CONFIGURATION:SPLIT, .parquet, a save_to_disk folder). A
            number after a source is its weight in a mix, such as libri/:1 arabic/:0.3. In Python also a loaded
            `datasets.Dataset`, or a mapping of sources to weights.
        out: output directory for the pruned encoder; new, empty, or of the same run.
        recipe: name of a recipe (default, paper, fast, quick or whisper) or a TOML file. By default, quick for the
            embedded teacher, whisper for a Whisper model, and default for others. In Python also a `Recipe`.
        overrides: fields of the recipe to override, such as prune.steps=1000 structures.conv=false. In Python a list
            of such texts, a single one, or a mapping.
        target_parameters: parameters to keep: a share of the dense encoder (28%) or a number (26.5M).
        target_macs: multiply-accumulates to keep: a share (20%) or a number (15G, for 10 s of audio).
        target_speed: speed-up over the dense encoder (4x) on this machine's CPU, whatever the training device;
            measuring it takes a minute or more.
        runtime: runtime of `target_speed`: torch, torch-bf16, onnx, onnx-int8, openvino, openvino-bf16, openvino-int8.
            By default torch, in float32.
        latency_table: latency table written by `slimvox latency`, possibly on another machine or for its GPU. A target
            in time is then one on that device, with the runtime, the threads and the clip length of the table.
        sizes: several encoders from one run, instead of a single target: shares to keep (50%,28%,15%) of the cost that
            the recipe counts: time in default and fast, parameters in quick and paper, MACs in whisper. Each gets a
            directory in `out`, such as keep-28.
        held_out: audio for measuring the distance to the teacher; by default, a part of `audio` is held out.
        device: training device; auto selects a GPU if there is one.
        precision: precision of the activations; weights and gates stay float32. By default, the fastest one that
            the device supports in hardware.
        max_steps: maximum number of training steps over both stages (with `sizes`: stage 1 and each stage 2); targets
            are still met.
        hours: maximum duration of the run, in hours: it measures its pace and shortens both stages as far as necessary;
            a resumed run counts the time used before. By default, as long as the recipe takes.
        seed: random seed for gates, batches, crops and baselines.
        control: baseline to train instead of learned gates: random gates, removal of the smallest weights (magnitude),
            removal of layers from the top, or an evenly thin encoder trained from scratch.
        checkpoint_seconds: seconds between checkpoints.
        workers: number of clips that each process decodes at a time; by default one for each of its cores.
        micro_batch_seconds: maximum seconds of audio in one forward pass of a process; by default as much as the free
            memory allows, and less after memory has run out. A step is divided into as many passes as necessary;
            results do not depend on it.
        checkpoint_activations: recompute layers in the backward pass instead of keeping their activations. On a
            GPU this needs about half of the memory and takes up to a third more time; on a CPU it saves little. auto
            does it if not even one clip fits otherwise.
        revision: branch, tag or commit of `model` on the Hugging Face hub; the same as MODEL@REVISION.
        token: access token for the hub; by default the one in HF_TOKEN, or the one that `hf auth login` stored.
        console: console for progress; None shows nothing.
        parts: replaced parts of the run, see `Pruner`; None for those of the recipe.

    Returns:
        The result of the run; with `sizes`, that of the smallest, whose field `sizes` lists all, largest first.

    Raises:
        SlimvoxError: for invalid arguments, unusable audio, and failures that the message explains.
        RunInterrupted: on Ctrl-C or SIGTERM, after a checkpoint; only in the main thread, which takes over these
            signals while the run lasts.
    """
    limit = None if hours is None else TimeLimit(hours)
    _check_request(control, sizes)
    sources = as_sources(audio)
    is_none = held_out is None or (isinstance(held_out, Sequence | Mapping) and not held_out)
    held_out_sources = [] if is_none else as_sources(held_out)
    directory = RunDirectory(path=Path(out).expanduser())
    name = recipe or ("quick" if str(model) == "embedded" else None)
    given = load_recipe(name, overrides) if name is not None else None
    console = console or Console(quiet=True)
    parts = parts or PruningParts()
    with on_disk(model, revision=revision, token=token) as teacher, own_accelerate_state():
        accelerator = build_accelerator(device=device, precision=precision, log_directory=directory.run)
        processes = Processes(accelerator)
        processes.on_main(directory.refuse_if_taken)
        loaded, earlier_kept = read_model(teacher, processes)
        recipes = {family.model_type: family.recipe for family in families()}
        chosen = given or load_recipe(recipes.get(loaded.encoder.anatomy.family, "default"), overrides)
        if max_steps is not None:
            chosen = chosen.limited_to(max_steps)
        check_clips(chosen, loaded)
        request = TargetRequest(
            parameters=target_parameters,
            macs=target_macs,
            speed=target_speed,
            sizes=None if sizes is None else parse_sizes(sizes),
            runtime=runtime,
            table=read_latency_table(latency_table, directory, loaded, processes),
        )
        planned = plan_sizes(
            chosen,
            loaded.encoder,
            request,
            parts,
            lambda target: prepare_cost(
                parts,
                target.kind,
                target.seconds,
                target.runtime,
                loaded.encoder.dense_anatomy,
                directory,
                accelerator,
                console,
                request.table,
            ),
        )
        recipe_of_smallest, budget = planned[-1]
        settings = RunSettings(
            model=loaded,
            earlier_kept=earlier_kept,
            recipe=recipe_of_smallest,
            budget=budget,
            audio=replace(
                read_audio(sources, held_out_sources, chosen, seed, parts, processes), workers=workers
            ),
            audio_names=tuple(source_name(source) for source in sources),
            out=directory,
            seed=seed,
            control=control,
            parts=parts,
            sizes=() if sizes is None else tuple(each.target.keep for each, _ in planned),
            schedule=SparsitySchedule(
                sparsities=tuple(each.target_sparsity for _, each in planned),
                ramp_steps=chosen.gates.ramp_steps,
                steps=chosen.prune.steps,
                shape=chosen.gates.ramp_shape,
            ),
            cut_step=chosen.prune.steps,
        )
        each_size: tuple[RunSettings, ...] = (settings,)
        if sizes is not None:
            each_size = tuple(
                replace(
                    settings,
                    recipe=size_recipe,
                    budget=size_budget,
                    out=directory.for_size(size_recipe.target.keep),
                    cut_step=step,
                )
                for (size_recipe, size_budget), step in zip(planned, settings.schedule.ends, strict=True)
            )
        with StopRequests(patient=processes.count > 1) as stop:
            trainer = Trainer(
                settings,
                accelerator,
                console,
                checkpoint_seconds,
                stop,
                micro_batch_seconds,
                checkpoint_activations,
                limit,
            )
            return Run(trainer, each_size).execute()


class Pruner(PruningParts):
    """A run of `prune` whose parts can be replaced: subclass it and override methods of `PruningParts`.

    >>> class MyPruner(slimvox.Pruner):
    ...     def build_gates(self, anatomy, recipe):
    ...         return Gates(anatomy, ["intermediate"])
    >>> result = MyPruner("embedded", "speech/", "runs/mine", callbacks=[HeldOutDistance(every=50)]).run()
    """

    def __init__(
        self,
        model: Model,
        audio: AudioInput | Sequence[AudioInput],
        out: str | Path,
        *,
        callbacks: Sequence[Callback] = (),
        **options: Any,
    ) -> None:
        """Prepare a run.

        Args:
            model: see `prune`.
            audio: see `prune`.
            out: see `prune`.
            callbacks: called after training steps, see `slimvox.pruning.Callback`.
            options: all other arguments of `prune`.
        """
        self.model, self.audio, self.out, self.callbacks, self.options = model, audio, out, callbacks, options

    def run(self) -> PruneResult:
        """Run, from the start or from the last checkpoint; result and errors are those of `prune`."""
        return prune(self.model, self.audio, self.out, parts=self, **self.options)


def _check_request(control: Control | None, sizes: object) -> None:
    """Raise `SlimvoxError` for arguments that cannot be combined."""
    if sizes is not None and control is not None:
        raise SlimvoxError(
            "`sizes` and `control` cannot be combined, because a control learns no gates: give a target instead"
        )
