"""Settings and result of a run, and the directory that it writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimvox.checkpoint import LoadedModel, load_model, write_slimvox_directory
from slimvox.checkpoint.model_card import Provenance, licence_of, model_card
from slimvox.comparison.distance import Distance
from slimvox.costs import macs, parameters
from slimvox.encoder import SpeechEncoder
from slimvox.measure.latency import LatencyTable
from slimvox.pruning.budget import Budget, SparsitySchedule
from slimvox.pruning.controls import Control
from slimvox.pruning.data import RunAudio
from slimvox.pruning.machine_speed import predicted_speed_up, table_place
from slimvox.pruning.outcome import read_outcome
from slimvox.pruning.parts import PruningParts
from slimvox.pruning.recipe import Recipe, to_toml
from slimvox.pruning.run_directory import RunDirectory
from slimvox.structures.kept_indices import KeptIndices
from slimvox.util.output_paths import writing
from slimvox.util.quantities import share_name


@dataclass(frozen=True, kw_only=True)
class PruneResult:
    """Result of a pruning run."""

    directory: Path
    """The slimvox directory."""
    encoder: SpeechEncoder
    """The pruned encoder, on the CPU, in evaluation mode."""
    parameters: int
    parameters_dense: int
    macs_10s: int
    macs_10s_dense: int
    distance_after_prune: Distance | None
    """Distance to the teacher right after surgery; None if no audio was held out."""
    distance_after_finish: Distance | None
    """Distance to the teacher at the end."""
    speed_up: float | None
    """Measured speed-up over the dense encoder; None if the target was not a speed, or the latency table is of another
    machine."""
    predicted_speed_up: float | None
    """Speed-up by the latency table; None if the target was not a speed."""
    predicted_for: str | None
    """Runtime, threads and machine of the latency table."""
    skipped_files: dict[str, int]
    """Audio files left out, by reason."""
    sizes: tuple[PruneResult, ...] = ()
    """All results of a run for several sizes, largest first; this one is the last of them. Empty for other runs."""


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """Validated settings of a run."""

    model: LoadedModel
    earlier_kept: KeptIndices | None
    """Units kept of the dense encoder, if the model was pruned before."""
    recipe: Recipe
    budget: Budget
    audio: RunAudio
    audio_names: tuple[str, ...]
    out: RunDirectory
    seed: int
    control: Control | None
    parts: PruningParts
    """Object that builds gates, loss, cost and audio, and holds the callbacks."""
    sizes: tuple[float, ...]
    """The shares that the encoders of a run for several sizes keep, largest first; empty for other runs."""
    schedule: SparsitySchedule
    """Sparsity schedule of stage 1."""
    cut_step: int
    """The step of stage 1 after which this size is cut."""


def write_result(result: PruneResult, settings: RunSettings, kept: KeptIndices, steps: str) -> None:
    """Write the slimvox directory of a run.

    Args:
        result: result of the run.
        settings: settings of the run.
        kept: kept units of the encoder that the run started from.
        steps: number of steps of both stages, as shown on the model card.

    Raises:
        SlimvoxError: if it cannot be written.
    """
    recipe = settings.recipe
    if settings.earlier_kept is not None:
        kept = kept.within(settings.earlier_kept)
    teacher = _teacher(settings.model)
    provenance = Provenance(
        teacher=teacher["name"],
        teacher_licence=teacher["licence"],
        teacher_parameters=parameters(settings.model.encoder.anatomy),
        earlier=_ancestors(teacher),
        audio=settings.audio_names,
        audio_hours=settings.audio.training_seconds / 3600,
    )
    last = result.distance_after_finish
    figures = {
        "recipe": recipe.name + (f", control: {settings.control}" if settings.control else ""),
        "steps": steps,
        **_sizes_text(settings),
        "seed": str(settings.seed),
        "distance to the teacher after stage 1": _distance_text(result.distance_after_prune),
        "distance to the teacher after stage 2": _distance_text(last),
        **_speed_text(result, settings),
        "audio files skipped": str(sum(result.skipped_files.values())),
    }
    card = model_card(
        result.encoder.anatomy,
        result.encoder.dense_anatomy,
        provenance,
        recipe=to_toml(recipe),
        figures=figures,
        metrics={"relative error": last.relative_error, "cosine distance": last.cosine} if last else {},
    )
    details = {
        "teacher": teacher,
        "run": {
            "recipe": recipe.to_dict(),
            "seed": settings.seed,
            "control": settings.control,
            **({"sizes": settings.sizes, "cut_step": settings.cut_step} if settings.sizes else {}),
        },
    }
    with writing(
        settings.out.path, "; the last checkpoint is kept: free some space, then repeat the same command"
    ):
        write_slimvox_directory(
            result.encoder,
            settings.out.path,
            kept_indices=kept.to_dict(),
            model_card=card,
            details=details,
            source=settings.model.directory,
        )
        result.encoder.origin = settings.out.path.absolute()


def read_result(settings: RunSettings) -> PruneResult:
    """Read the result of a finished run from its directory.

    Raises:
        SlimvoxError: if something is missing or damaged.
    """
    out = settings.out
    out.check_model_files()
    encoder, outcome = load_model(out.path).encoder, read_outcome(out.run)
    first, last = (outcome.get(f"distance_after_{stage}") for stage in ("prune", "finish"))
    return PruneResult(
        directory=out.path,
        encoder=encoder,
        parameters=parameters(encoder.anatomy),
        parameters_dense=parameters(encoder.dense_anatomy),
        macs_10s=macs(encoder.anatomy),
        macs_10s_dense=macs(encoder.dense_anatomy),
        distance_after_prune=Distance(**first) if first else None,
        distance_after_finish=Distance(**last) if last else None,
        speed_up=outcome.get("speed_up"),
        predicted_speed_up=predicted_speed_up(encoder, settings.budget.cost),
        predicted_for=table_place(settings.budget.cost),
        skipped_files=outcome.get("audio", {}).get("skipped", {}),
    )


def _teacher(model: LoadedModel) -> dict[str, Any]:
    """Name and licence of the teacher and, if slimvox pruned it, of its teacher in turn."""
    teacher: dict[str, Any] = {"name": model.public_name, "licence": licence_of(model.directory)}
    earlier = model.teacher
    if earlier is not None:
        teacher["teacher"] = earlier
    return teacher


def _ancestors(teacher: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the teacher's teacher, its teacher and so on."""
    names = []
    while isinstance(teacher := teacher.get("teacher", ()), Mapping):
        names.append(str(teacher.get("name") or "an encoder unknown by name"))
    return tuple(names)


def _sizes_text(settings: RunSettings) -> dict[str, str]:
    """The row of the model card about the run for several sizes that produced this encoder."""
    if not settings.sizes:
        return {}
    sizes = ", ".join(f"{share_name(share)} %" for share in settings.sizes)
    return {
        "sizes of the run": f"{sizes}; this one was cut out of the student after step {settings.cut_step} of"
        f" {settings.recipe.prune.steps}"
    }


def _speed_text(result: PruneResult, settings: RunSettings) -> dict[str, str]:
    """The rows of the model card about speed."""
    cost = settings.budget.cost
    place = f" in {cost.place}, {cost.seconds:g} s of audio" if isinstance(cost, LatencyTable) else ""
    return {
        title: f"{value:.2f}x the dense encoder's{place}"
        for title, value in (
            ("measured speed", result.speed_up),
            ("predicted speed", result.predicted_speed_up),
        )
        if value is not None
    }


def _distance_text(distance: Distance | None) -> str:
    if distance is None:
        return "not measured (no audio with sound held out)"
    return (
        f"relative error {distance.relative_error:.3f}, 1 - cosine {distance.cosine:.3f}"
        f" (all hidden states, {distance.seconds:.0f} s of audio held out)"
    )
