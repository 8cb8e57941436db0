"""Resolution of model names (directories, hub ids, `embedded`) to local directories, and loading from them."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch

from slimvox.checkpoint.directory import is_slimvox_directory, read_anatomies, read_slimvox_directory
from slimvox.checkpoint.hub import HubAccess, download
from slimvox.checkpoint.json_fields import read_json
from slimvox.checkpoint.transformers_config import anatomy_from_config
from slimvox.checkpoint.transformers_reader import read_transformers_anatomy, read_transformers_directory
from slimvox.embedded import teacher_directory
from slimvox.encoder import SpeechEncoder
from slimvox.structures.anatomy import EncoderAnatomy
from slimvox.structures.kept_indices import KeptIndices
from slimvox.util.devices import DEVICES, check_presence, find_device
from slimvox.util.errors import SlimvoxError

logger = logging.getLogger("slimvox.checkpoint")
EMBEDDED = "embedded"
AnyModel = TypeVar("AnyModel")


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """An encoder with its origin."""

    name: str
    """Name of the model, as given by the user."""
    directory: Path
    """Directory of the model's files."""
    encoder: SpeechEncoder
    """The encoder in evaluation mode, float32, on the CPU."""
    head_modules: tuple[str, ...]
    """Modules of the checkpoint that are not part of the encoder, such as a CTC head."""

    @property
    def public_name(self) -> str:
        """Name for a model card: a hub id or `embedded` unchanged, or the last part of a local path."""
        return Path(self.name).name if Path(self.name).is_dir() else self.name.partition("@")[0]

    @property
    def teacher(self) -> dict[str, Any] | None:
        """Teacher recorded in a directory written by slimvox, with at least `name` (None if it is not recorded); None
        for models that slimvox did not prune.
        """
        if not is_slimvox_directory(self.directory):
            return None
        teacher = read_json(self.directory / "config.json").get("teacher")
        return teacher if isinstance(teacher, dict) and "name" in teacher else {"name": None}

    def kept_indices(self) -> KeptIndices | None:
        """Indices of the dense encoder's structures that a pruned model has kept, from `kept_indices.json`.

        None for a model that was not pruned, and for one whose file is lost, with a warning.

        Raises:
            SlimvoxError: if the file is damaged, or of another encoder.
        """
        if not is_slimvox_directory(self.directory):
            return None
        file = self.directory / "kept_indices.json"
        dense, anatomy = self.encoder.dense_anatomy, self.encoder.anatomy
        if not file.is_file():
            if anatomy != dense:
                logger.warning(
                    "%s is missing, so units are numbered as in the pruned encoder, not as in the dense one",
                    file,
                )
            return None
        content = read_json(file)
        if not content and anatomy == dense:
            return None
        try:
            kept = KeptIndices.from_dict(content, dense)
            if kept.anatomy(dense) != anatomy:
                raise ValueError("the units that it keeps do not make up the encoder in config.json")
        except ValueError as error:
            raise SlimvoxError(
                f"{file} does not fit the encoder beside it: {error}; restore the file that came with the model, or"
                " remove it"
            ) from error
        return kept


def load_model(
    model: str | os.PathLike[str], *, revision: str | None = None, access: HubAccess | None = None
) -> LoadedModel:
    """Load an encoder with its provenance.

    Args:
        model: encoder: `embedded`, a local directory, or a model id on the Hugging Face hub.
        revision: branch, tag or commit of `model` on the Hugging Face hub; the same as MODEL@REVISION.
        access: revision and further options, instead of `revision`.

    Raises:
        SlimvoxError: if there is no such model, or it is not one that slimvox can read.
    """
    directory = find_model(model, revision=revision, access=access)
    head_modules: tuple[str, ...] = ()
    if is_slimvox_directory(directory):
        encoder = read_slimvox_directory(directory)
    else:
        read = read_transformers_directory(directory)
        encoder, head_modules = read.encoder, read.head_modules
    encoder.origin = directory.absolute()
    return LoadedModel(
        name=str(model), directory=directory, encoder=encoder.eval(), head_modules=head_modules
    )


def find_anatomies(
    model: str | Path, *, revision: str | None = None
) -> tuple[EncoderAnatomy, EncoderAnatomy]:
    """Anatomies of a model and of the dense one that it was pruned from (its own if it was not); reads no weights.

    Args:
        model: as for `load_model`.
        revision: branch, tag or commit on the hub.

    Raises:
        SlimvoxError: if there is no such model, or its configuration is not one that slimvox can read.
    """
    directory = find_model(model, revision=revision, weights=False)
    if is_slimvox_directory(directory):
        return read_anatomies(directory)
    anatomy = read_transformers_anatomy(directory)
    return anatomy, anatomy


def load(
    model: str | os.PathLike[str],
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    dtype: torch.dtype | str | None = None,
    device: str | torch.device | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
) -> SpeechEncoder:
    """Load an encoder, ready for use.

    Args:
        model: `embedded` (the small teacher that comes with slimvox), a directory written by slimvox or by
            `transformers`, or a model id on the Hugging Face hub such as `microsoft/wavlm-base-plus`, also with a
            revision, `microsoft/wavlm-base-plus@REVISION`.
        revision: branch, tag or commit on the hub.
        token: access token for the hub; by default the one that `hf auth login` stored.
        dtype: type of the weights, such as `torch.bfloat16` or `"bfloat16"`; float32 if not given.
        device: device of the weights, as torch names it, or `auto` for a GPU if there is one; the CPU if not given.
        cache_dir: folder for files from the hub; by default the cache of `huggingface_hub`.
        local_files_only: take files from the cache only, and do not ask the hub.

    Returns:
        The encoder in evaluation mode.

    Raises:
        SlimvoxError: if there is no such model, it is not one that slimvox can read, or `dtype` or `device` is not one.

    Examples:
        >>> encoder = slimvox.load("embedded")
        >>> states = encoder(torch.randn(1, 16_000)).hidden_states
    """
    weights_dtype, where = _dtype(dtype), _device(device)
    access = HubAccess(
        revision=revision,
        token=token,
        cache_dir=None if cache_dir is None else Path(cache_dir),
        local_files_only=local_files_only,
    )
    return load_model(model, access=access).encoder.to(device=where, dtype=weights_dtype)


def _dtype(dtype: torch.dtype | str | None) -> torch.dtype:
    if dtype is None:
        return torch.float32
    found = getattr(torch, dtype.removeprefix("torch."), None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise SlimvoxError(
            f"`dtype` must be a floating-point type of torch, such as torch.bfloat16 or 'bfloat16', but is {dtype!r}"
            " instead"
        )
    return found


def _device(device: str | torch.device | None) -> torch.device:
    if isinstance(device, str) and device in DEVICES:
        return find_device(device)
    try:
        found = torch.device("cpu" if device is None else device)
    except (RuntimeError, TypeError) as error:
        raise SlimvoxError(
            f"`device` must be `auto` or a device of torch, but is {device!r} instead"
        ) from error
    check_presence(found)
    return found


def find_model(
    model: str | os.PathLike[str],
    *,
    revision: str | None = None,
    weights: bool = True,
    access: HubAccess | None = None,
) -> Path:
    """The local directory of a model, which is downloaded first if necessary.

    Args:
        model: as for `load_model`.
        revision: branch, tag or commit on the hub.
        weights: whether the weights of a model on the hub are needed as well.
        access: revision and further options, instead of `revision`.

    Raises:
        SlimvoxError: if there is no such model, or it is on the hub and not one that slimvox can read.
    """
    if not isinstance(model, str | os.PathLike):
        raise SlimvoxError(
            f"a model must be named by a directory or an id on the hub, but is a {type(model).__name__} instead; save"
            " it and give the directory"
        )
    access = access or HubAccess(revision=revision)
    model = at_revision(model, access.revision)
    name = str(model)
    if name == EMBEDDED:
        return teacher_directory()
    path = Path(model).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise SlimvoxError(f"{path} is not a model directory: there is no config.json in it")
        return path
    if path.exists():
        raise SlimvoxError(
            f"{path} is a file; a model is a directory with config.json and model.safetensors in it"
        )
    if not isinstance(model, str) or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise SlimvoxError(f"there is no directory {path}")
    name, _, own_revision = name.partition("@")
    logger.info("%s: from the Hugging Face hub, revision %s", name, own_revision or "main")
    access = replace(access, revision=own_revision or None)
    return download(name, access, check=_check_supported, weights=weights)


def at_revision(model: AnyModel, revision: str | None) -> AnyModel | str:
    """A model with its revision, MODEL@REVISION; `model` itself if there is no revision.

    Raises:
        SlimvoxError: if there is a revision, and the model is not on the hub or names another one.
    """
    if revision is None:
        return model
    if not isinstance(model, str) or model == EMBEDDED or Path(model).expanduser().exists():
        what = model if isinstance(model, str | os.PathLike) else f"a {type(model).__name__}"
        raise SlimvoxError(f"`revision` is for models on the Hugging Face hub, which {what} is not")
    name, at, own_revision = model.partition("@")
    if at and own_revision != revision:
        raise SlimvoxError(f"{model} names a revision, so `revision` must not be {revision!r}")
    return f"{name}@{revision}"


def _check_supported(directory: Path) -> None:
    """Raise SlimvoxError if `config.json` alone shows that slimvox cannot read a model."""
    if is_slimvox_directory(directory):
        read_anatomies(directory)
    else:
        file = directory / "config.json"
        anatomy_from_config(read_json(file), file, normalize_waveform=False)
