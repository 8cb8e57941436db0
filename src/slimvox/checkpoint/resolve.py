"""From what a user calls a model to a directory with its files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slimvox.anatomy import EncoderAnatomy
from slimvox.checkpoint.directory import is_slimvox_directory, read_anatomies, read_slimvox_directory
from slimvox.checkpoint.transformers_reader import (
    read_json,
    read_transformers_anatomy,
    read_transformers_directory,
)
from slimvox.embedded import teacher_directory
from slimvox.encoder import SpeechEncoder
from slimvox.errors import SlimvoxError

EMBEDDED = "embedded"
HUB_FILES = (
    "config.json",
    "preprocessor_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "README.md",
)


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """An encoder with where it came from."""

    name: str
    """What the user called it."""
    directory: Path
    """Where its files are."""
    encoder: SpeechEncoder
    """In evaluation mode, float32, on the CPU."""
    left_aside: tuple[str, ...]
    """Modules of the checkpoint that are no part of the encoder, such as a CTC head."""

    @property
    def public_name(self) -> str:
        """What a model card may call it: a hub id or `embedded` as it is, of a local path the last part only."""
        return Path(self.name).name if Path(self.name).is_dir() else self.name

    @property
    def teacher(self) -> dict[str, Any] | None:
        """What a directory that slimvox wrote says of the teacher, with at least `name` (None where it says nothing);
        None for models that slimvox did not prune.
        """
        if not is_slimvox_directory(self.directory):
            return None
        teacher = read_json(self.directory / "config.json").get("teacher")
        return teacher if isinstance(teacher, dict) and "name" in teacher else {"name": None}


def load_model(model: str | Path, *, revision: str | None = None) -> LoadedModel:
    """Load an encoder with its provenance.

    Args:
        model: `embedded`, a directory (slimvox's or `transformers`'), or a model id on the Hugging Face hub.
        revision: branch, tag or commit on the hub.

    Raises:
        SlimvoxError: if there is no such model, or it is not one that slimvox can read.
    """
    directory = find_model(model, revision=revision)
    left_aside: tuple[str, ...] = ()
    if is_slimvox_directory(directory):
        encoder = read_slimvox_directory(directory)
    else:
        read = read_transformers_directory(directory)
        encoder, left_aside = read.encoder, read.left_aside
    return LoadedModel(name=str(model), directory=directory, encoder=encoder.eval(), left_aside=left_aside)


def find_anatomies(
    model: str | Path, *, revision: str | None = None
) -> tuple[EncoderAnatomy, EncoderAnatomy]:
    """What a model, and the dense one it was pruned from (itself if it was not), are made of; reads no weights.

    Args:
        model: as for `load_model`.
        revision: branch, tag or commit on the hub.

    Raises:
        SlimvoxError: if there is no such model, or its configuration is not one that slimvox can read.
    """
    directory = find_model(model, revision=revision)
    if is_slimvox_directory(directory):
        return read_anatomies(directory)
    anatomy = read_transformers_anatomy(directory)
    return anatomy, anatomy


def load(model: str | Path, *, revision: str | None = None) -> SpeechEncoder:
    """Load an encoder, ready for use.

    >>> encoder = slimvox.load("embedded")
    >>> states = encoder(torch.randn(1, 16_000)).hidden_states

    Args:
        model: `embedded` (the small teacher that comes with slimvox), a directory written by slimvox or by
            `transformers`, or a model id on the Hugging Face hub such as `microsoft/wavlm-base-plus`.
        revision: branch, tag or commit on the hub.

    Returns:
        The encoder in evaluation mode, float32, on the CPU.

    Raises:
        SlimvoxError: if there is no such model, or it is not one that slimvox can read.
    """
    return load_model(model, revision=revision).encoder


def find_model(model: str | Path, *, revision: str | None = None) -> Path:
    """The local directory of a model, downloaded first if need be."""
    name = str(model)
    if name == EMBEDDED:
        return teacher_directory()
    path = Path(model).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise SlimvoxError(f"{path} is no model directory: there is no config.json in it")
        return path
    if path.exists():
        raise SlimvoxError(
            f"{path} is a file; a model is a directory with config.json and model.safetensors in it"
        )
    if isinstance(model, Path) or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise SlimvoxError(f"there is no directory {path}")
    return _download(name, revision)


def _download(name: str, revision: str | None) -> Path:
    """Fetch a model from the Hugging Face hub (or its local cache)."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        directory = Path(snapshot_download(name, revision=revision, allow_patterns=list(HUB_FILES)))
        if not any(directory.glob("*.safetensors")):
            files = HfApi().list_repo_files(name, revision=revision)
            if "pytorch_model.bin" in files:
                directory = Path(
                    snapshot_download(
                        name, revision=revision, allow_patterns=[*HUB_FILES, "pytorch_model.bin"]
                    )
                )
        return directory
    except (HFValidationError, RepositoryNotFoundError, RevisionNotFoundError, EntryNotFoundError) as error:
        if isinstance(error, GatedRepoError):
            raise SlimvoxError(f"{name}: the hub asks for a login: run `hf auth login` first") from error
        if not isinstance(error, LocalEntryNotFoundError):
            raise SlimvoxError(
                f"{name}: there is neither such a directory nor such a model on the Hugging Face hub"
            ) from error
        raise SlimvoxError(_unreachable(name)) from error
    except Exception as error:  # requests, httpx and OS errors, by version of huggingface_hub
        raise SlimvoxError(f"{_unreachable(name)} ({type(error).__name__})") from error


def _unreachable(name: str) -> str:
    return (
        f"{name}: there is no such directory, and the Hugging Face hub can't be reached;"
        " give a local directory, or `embedded`"
    )
