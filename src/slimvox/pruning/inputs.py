"""Inputs of a run, which only the main process reads and sends to the others."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slimvox.audio import AudioInput
from slimvox.audio.find import source_place
from slimvox.audio.mix import unweighted
from slimvox.checkpoint import LoadedModel, load_model
from slimvox.encoder import SpeechEncoder
from slimvox.measure.latency import LatencyTable, read_table
from slimvox.pruning.data import RunAudio
from slimvox.pruning.parts import PruningParts
from slimvox.pruning.processes import Processes
from slimvox.pruning.recipe import Recipe
from slimvox.pruning.run_directory import LATENCY_TABLE, RunDirectory
from slimvox.structures.anatomy import SAMPLE_RATE_HZ, EncoderAnatomy
from slimvox.structures.kept_indices import KeptIndices
from slimvox.util.errors import SlimvoxError


def read_latency_table(
    given: str | Path | None, directory: RunDirectory, model: LoadedModel, processes: Processes
) -> LatencyTable | None:
    """The latency table in a file or, if the file is gone, the copy of a started run; read in the main process."""
    if given is None:
        return None

    def read() -> LatencyTable:
        path, kept = Path(given).expanduser(), directory.run / LATENCY_TABLE
        return read_table(kept if kept.is_file() and not path.exists() else path, model.encoder.dense_anatomy)

    return processes.on_main(read)


def check_clips(recipe: Recipe, model: LoadedModel) -> None:
    """Raise SlimvoxError if the recipe's clips are longer than the model takes."""
    longest = model.encoder.anatomy.most_samples
    for name in ("max_seconds", "pad_to_seconds"):
        seconds = getattr(recipe.data, name)
        if longest is not None and seconds * SAMPLE_RATE_HZ > longest:
            raise SlimvoxError(
                f"`data.{name}` must be at most {longest / SAMPLE_RATE_HZ:g}, the longest input of {model.name},"
                f" but is {seconds:g} instead"
            )


def read_model(name: str | os.PathLike[str], processes: Processes) -> tuple[LoadedModel, KeptIndices | None]:
    """The model and its kept units if it was pruned before. Only the main process reads it and sends it to the others,
    which need neither a copy on their disks nor access to the hub.
    """
    own: list[tuple[LoadedModel, KeptIndices | None]] = []

    def read() -> dict[str, Any]:
        loaded = load_model(name)
        own.append((loaded, loaded.kept_indices()))
        encoder, kept = loaded.encoder, own[0][1]
        if processes.count == 1:
            return {}
        return {
            "name": loaded.name,
            "directory": str(loaded.directory),
            "head_modules": list(loaded.head_modules),
            "anatomy": encoder.anatomy.to_dict(),
            "dense_anatomy": encoder.dense_anatomy.to_dict(),
            "weights": encoder.state_dict(),
            "kept": None if kept is None else kept.to_dict(),
        }

    sent = processes.on_main(read)
    if own:
        return own[0]
    dense = EncoderAnatomy.from_dict(sent["dense_anatomy"])
    encoder = SpeechEncoder(EncoderAnatomy.from_dict(sent["anatomy"]), dense).eval()
    encoder.load_state_dict(sent["weights"])
    loaded = LoadedModel(
        name=sent["name"],
        directory=Path(sent["directory"]),
        encoder=encoder,
        head_modules=tuple(sent["head_modules"]),
    )
    return loaded, None if sent["kept"] is None else KeptIndices.from_dict(sent["kept"], dense)


def read_audio(
    sources: Sequence[AudioInput],
    held_out: Sequence[AudioInput],
    recipe: Recipe,
    seed: int,
    parts: PruningParts,
    processes: Processes,
) -> RunAudio:
    """The audio of the run. Only the main process lists and measures it and sends the list to the others, unless they
    have the audio in other places, or it is in objects that cannot be sent.
    """

    def build() -> RunAudio:
        return parts.build_audio(sources, recipe, seed, held_out)

    places = [source_place(unweighted(source)[0]) for source in (*sources, *held_out)]
    alike = processes.gather(lambda: places)
    is_own = type(parts).build_audio is not PruningParts.build_audio
    if processes.count == 1 or is_own or None in places or any(each != places for each in alike):
        return processes.together(build)
    built: list[RunAudio] = []

    def build_first() -> RunAudio | None:
        built.append(build())
        return built[0] if built[0].is_on_disk else None

    sent = processes.on_main(build_first)
    if sent is None:
        return processes.together(lambda: built[0] if built else build())
    processes.together(sent.check_files)
    return sent
