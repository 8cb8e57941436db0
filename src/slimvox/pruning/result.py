"""What a run was asked for, what it gave, and the directory that it leaves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from slimvox.budget import Budget
from slimvox.checkpoint import LoadedModel, write_slimvox_directory
from slimvox.checkpoint.model_card import Provenance, licence_of, model_card
from slimvox.checkpoint.transformers_reader import read_json
from slimvox.distance import Distance
from slimvox.encoder import SpeechEncoder
from slimvox.errors import SlimvoxError
from slimvox.kept_indices import KeptIndices
from slimvox.pruning.controls import Control
from slimvox.pruning.data import RunAudio
from slimvox.pruning.run_directory import RunDirectory
from slimvox.recipe import Recipe, to_toml


@dataclass(frozen=True, kw_only=True)
class PruneResult:
    """What a run gave."""

    directory: Path
    """The slimvox directory."""
    encoder: SpeechEncoder
    """The pruned encoder, on the CPU, in evaluation mode."""
    parameters: int
    parameters_dense: int
    macs_10s: int
    macs_10s_dense: int
    distance_after_prune: Distance | None
    """Distance to the teacher right after surgery; None where no audio was held out."""
    distance_after_finish: Distance | None
    """The same at the end."""
    speed_up: float | None
    """How many times faster than the dense encoder, measured; None where the target was no speed."""
    skipped_files: dict[str, int]
    """Audio files left out, by reason."""


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What a run was asked for, checked."""

    model: LoadedModel
    recipe: Recipe
    budget: Budget
    audio: RunAudio
    audio_names: tuple[str, ...]
    out: RunDirectory
    seed: int
    control: Control | None


def write_result(result: PruneResult, settings: RunSettings, kept: KeptIndices) -> None:
    """Write the slimvox directory of a run.

    Args:
    result: what the run gave.
    settings: what it was asked for.
    kept: what is left of the encoder that the run started from.

    Raises:
    SlimvoxError: if it can't be written.
    """
    recipe = settings.recipe
    earlier = settings.model.directory / "kept_indices.json"
    if earlier.is_file():
        kept = kept.within(KeptIndices.from_dict(read_json(earlier)))
    provenance = Provenance(
        teacher=settings.model.public_name,
        teacher_licence=licence_of(settings.model.directory),
        audio=settings.audio_names,
        audio_hours=settings.audio.training_seconds / 3600,
    )
    figures = {
        "recipe": recipe.name + (f", control: {settings.control}" if settings.control else ""),
        "steps": f"{recipe.prune.steps} + {recipe.finish.steps}",
        "seed": str(settings.seed),
        "distance to the teacher after stage 1": _distance_text(result.distance_after_prune),
        "distance to the teacher after stage 2": _distance_text(result.distance_after_finish),
        **(
            {}
            if result.speed_up is None
            else {"measured speed": f"{result.speed_up:.2f}x the dense encoder's"}
        ),
        "audio files skipped": str(sum(result.skipped_files.values())),
    }
    card = model_card(
        result.encoder.anatomy,
        result.encoder.dense_anatomy,
        provenance,
        recipe=to_toml(recipe),
        figures=figures,
    )
    details = {
        "teacher": {"name": provenance.teacher, "licence": provenance.teacher_licence},
        "run": {"recipe": recipe.to_dict(), "seed": settings.seed, "control": settings.control},
    }
    try:
        write_slimvox_directory(
            result.encoder,
            settings.out.path,
            kept_indices=kept.to_dict(),
            model_card=card,
            details=details,
        )
    except OSError as error:
        raise SlimvoxError(
            f"{settings.out.path} can't be written: {error.strerror}; the last checkpoint is kept: make room, then"
            " repeat the same command"
        ) from error


def _distance_text(distance: Distance | None) -> str:
    if distance is None:
        return "not measured (no audio held out)"
    return (
        f"relative error {distance.relative_error:.3f}, 1 - cosine {distance.cosine:.3f}"
        f" (all hidden states, {distance.seconds:.0f} s of audio held out)"
    )
