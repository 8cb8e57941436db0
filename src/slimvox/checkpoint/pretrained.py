"""Saving of encoders as directories and repositories of the Hugging Face hub, as in `SpeechEncoder.save_pretrained`."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

from torch import nn

from slimvox.checkpoint.decoder import has_decoder
from slimvox.checkpoint.directory import (
    MERGE_FIRST,
    checked_weights,
    is_slimvox_directory,
    read_anatomies,
    write_slimvox_directory,
)
from slimvox.checkpoint.json_fields import read_json
from slimvox.checkpoint.model_card import licence_of, short_card
from slimvox.checkpoint.normalization import PREPROCESSOR_FILES
from slimvox.checkpoint.resolve import LoadedModel, at_revision, find_anatomies, find_model, load
from slimvox.encoder import HasEncoder, SpeechEncoder
from slimvox.hf.directory_format import WHISPER_FILES
from slimvox.util.environment import hub_token
from slimvox.util.errors import SlimvoxError, reason_of
from slimvox.util.output_paths import writing

logger = logging.getLogger("slimvox.checkpoint")
Model: TypeAlias = str | os.PathLike[str] | HasEncoder | nn.Module
"""Type of model arguments: anything that `slimvox.load` takes, an encoder, or a model of `transformers`."""
CARRIED_FIELDS = ("teacher", "run")
"""Fields of `config.json` about the origin of an encoder."""


def save_encoder(encoder: SpeechEncoder, directory: str | os.PathLike[str]) -> Path:
    """Write an encoder as a slimvox directory; see `SpeechEncoder.save_pretrained`.

    Raises:
        SlimvoxError: if the directory cannot be written, or the origin of a Whisper is no longer there.
    """
    target = Path(directory).expanduser()
    origin = _origin_of(encoder)
    kept: dict[str, Any] | None = {} if encoder.anatomy == encoder.dense_anatomy else None
    card, details = None, {}
    if origin is not None and _holds(origin, encoder):
        kept = _kept_indices(encoder, origin) or kept
        card = origin / "README.md"
        config = read_json(origin / "config.json")
        details = {name: config[name] for name in CARRIED_FIELDS if name in config}
    if kept is None:
        logger.warning(
            "the units that %s keeps of its dense encoder are not known, so kept_indices.json is not written",
            target.name,
        )
    with writing(target):
        if card is not None and card.is_file():
            text = card.read_text(encoding="utf-8")
        else:
            licence = None if origin is None else licence_of(origin)
            text = short_card(encoder.anatomy, encoder.dense_anatomy, licence=licence)
        write_slimvox_directory(
            encoder,
            target,
            kept_indices=kept,
            model_card=text,
            details=details,
            source=origin if origin is not None and _is_of(origin, encoder) else None,
        )
    return target


def _origin_of(encoder: SpeechEncoder) -> Path | None:
    """The directory that an encoder was loaded from; None, with a warning, if it is no longer there.

    Raises:
        SlimvoxError: if the encoder is a Whisper's, whose decoder may be lost.
    """
    origin = encoder.origin
    if origin is None or origin.is_dir():
        return origin
    gone = f"{origin}, from which the encoder was loaded, is no longer there"
    if encoder.anatomy.mel_bins:
        raise SlimvoxError(
            f"{gone}, so a decoder in it would be lost; set `encoder.origin` to its new place, or to None to save the"
            " encoder alone"
        )
    logger.warning("%s, so its model card and its kept indices are not copied", gone)
    return None


def _holds(origin: Path, encoder: SpeechEncoder) -> bool:
    """True if a directory still holds an encoder of the same sizes, and not another that was saved over it."""
    if not is_slimvox_directory(origin):
        return False
    return read_anatomies(origin) == (encoder.anatomy, encoder.dense_anatomy)


def _is_of(origin: Path, encoder: SpeechEncoder) -> bool:
    """True if a directory still holds a model with the dense sizes of the encoder, so that its decoder fits."""
    return has_decoder(origin) and find_anatomies(origin)[1] == encoder.dense_anatomy


def _kept_indices(encoder: SpeechEncoder, origin: Path) -> dict[str, Any] | None:
    """Content of the origin's `kept_indices.json`; None if there is none, or it does not fit."""
    try:
        model = LoadedModel(name=str(origin), directory=origin, encoder=encoder, head_modules=())
        kept = model.kept_indices()
    except SlimvoxError as error:
        logger.warning("%s", error)
        return None
    return None if kept is None else kept.to_dict()


def push_encoder(encoder: SpeechEncoder, name: str, **options: Any) -> str:
    """Save an encoder to a repository on the hub, with the options of `push_directory`.

    Raises:
        SlimvoxError: if the hub cannot be reached or refuses the upload.
    """
    with tempfile.TemporaryDirectory() as folder:
        save_encoder(encoder, folder)
        return push_directory(folder, name, **options)


def check_repository_name(name: str) -> None:
    """Check the form of a repository's name, without asking the hub.

    Raises:
        SlimvoxError: if the hub has no names of this form.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise SlimvoxError(
            f"`{name}` is not a name of a repository on the Hugging Face hub: give USER/NAME"
        ) from error


def push_directory(
    directory: str | os.PathLike[str],
    name: str,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    private: bool | None = None,
    commit_message: str = "Upload speech encoder",
) -> str:
    """Upload the model files of a slimvox directory to a repository on the hub; logs and checkpoints stay behind.

    Returns:
        URL of the commit.

    Raises:
        SlimvoxError: if the hub cannot be reached or refuses the upload.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError

    api = HfApi(token=token)
    try:
        repository = api.create_repo(name, private=private, exist_ok=True).repo_id
        if revision is not None:
            api.create_branch(repository, branch=revision, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository,
            folder_path=Path(directory),
            allow_patterns=["*.json", "*.safetensors", "*.py", "merges.txt", "README.md"],
            ignore_patterns=["*/*"],
            revision=revision,
            commit_message=commit_message,
        )
    except (HFValidationError, OSError) as error:
        raise SlimvoxError(f"{name} cannot be pushed to the Hugging Face hub: {reason_of(error)}") from error
    except Exception as error:  # errors of requests or httpx, by version of huggingface_hub
        reason = f"{type(error).__name__}: {reason_of(error)}"
        raise SlimvoxError(f"{name} cannot be pushed to the Hugging Face hub: {reason}") from error
    return str(commit.commit_url)


@contextlib.contextmanager
def on_disk(
    model: Model, *, revision: str | None = None, token: str | None = None
) -> Iterator[str | os.PathLike[str]]:
    """Give a model a name within this context: its own if it has one, else that of a temporary copy.

    Args:
        model: what `slimvox.load` takes; a `SpeechEncoder`; or a model of `transformers`, also with a task head.
        revision: branch, tag or commit on the hub, which becomes a part of the name.
        token: access token for the hub, used within the context.

    Raises:
        SlimvoxError: if it is none of these, or has adapters or quantised weights.
    """
    model = at_revision(model, revision)
    if isinstance(model, str | os.PathLike):
        with hub_token(token):
            yield model
        return
    save: Any = getattr(model, "save_pretrained", None)
    if save is None:
        raise SlimvoxError(
            "`model` must be a name, a directory, an encoder or a model of transformers, but is a"
            f" {type(model).__name__} instead"
        )
    if hasattr(model, "merge_and_unload"):  # a model of peft, which would save its adapters alone
        raise SlimvoxError(f"a {type(model).__name__} cannot be saved as a whole: {MERGE_FIRST}")
    if isinstance(model, HasEncoder):
        checked_weights(model.as_encoder())
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / type(model).__name__
        save(directory)
        source = getattr(getattr(model, "config", None), "name_or_path", None)
        if source and not is_slimvox_directory(directory):
            with contextlib.suppress(
                SlimvoxError
            ):  # no longer there: what to do with waveforms is not known then
                _copy_preprocessor(find_model(source, weights=False), directory)
        yield directory


def _copy_preprocessor(source: Path, target: Path) -> None:
    for name in (*PREPROCESSOR_FILES, *WHISPER_FILES):
        if (source / name).is_file() and not (target / name).is_file():
            shutil.copyfile(source / name, target / name)


def encoder_of(model: Model, *, revision: str | None = None, token: str | None = None) -> SpeechEncoder:
    """The encoder of a model: loaded by name, the object itself, or the one inside the object.

    The encoder shares its parameters with slimvox's own models; for other models of `transformers` it is a copy on the
    same device.

    Raises:
        SlimvoxError: if there is no such model, or it is not one that slimvox can read.
    """
    if isinstance(model, HasEncoder):
        return model.as_encoder()
    with on_disk(model, revision=revision, token=token) as name:
        encoder = load(name)
    if isinstance(model, nn.Module):
        encoder.to(next(model.parameters()).device)
        encoder.origin = None
    return encoder


def name_of(model: Model) -> str:
    """The name by which the user called a model; that of the class for an object."""
    return os.fspath(model) if isinstance(model, str | os.PathLike) else type(model).__name__
