"""Models on the Hugging Face hub: the configuration first, then only the files that the model needs."""

from __future__ import annotations

import dataclasses
import errno
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from slimvox.checkpoint.json_fields import read_json
from slimvox.checkpoint.normalization import PREPROCESSOR_FILES
from slimvox.checkpoint.tensors import INDEX_SUFFIX, WEIGHT_FILES, shard_names
from slimvox.hf.directory_format import WHISPER_FILES, WHISPER_MODEL_TYPE
from slimvox.util.errors import SlimvoxError, reason_of

logger = logging.getLogger("slimvox.checkpoint")

CONFIG = "config.json"
SMALL_FILES = (*PREPROCESSOR_FILES, "README.md", "kept_indices.json")
"""Files that are downloaded besides the weights if they exist."""
NOTE_SECONDS = 4.0
"""Time of a request after which the user is told what is waited for; `huggingface_hub` repeats requests that fail."""


@dataclass(frozen=True, kw_only=True)
class HubAccess:
    """Version of a model on the hub, and options for downloading it."""

    revision: str | None = None
    """Branch, tag or commit; None for the main branch."""
    token: str | bool | None = None
    """Access token; None or True for the one that `hf auth login` stored, False for none."""
    cache_dir: str | Path | None = None
    """Folder for downloaded files; None for the cache of `huggingface_hub`."""
    local_files_only: bool = False
    """True to use only files in the cache, without asking the hub."""


def download(name: str, access: HubAccess, *, check: Callable[[Path], None], weights: bool = True) -> Path:
    """Download a model into the local cache of the hub, unless it is there already.

    All files are of one commit. If they are in the cache, the only request is for the current commit, and there is none
    offline.

    Args:
        name: the model's id.
        access: version, token and cache.
        check: called with the directory once `config.json` is in it; raises for models that cannot be used, before
            anything else is downloaded.
        weights: whether to download weights as well.

    Returns:
        The directory with the files.

    Raises:
        SlimvoxError: if there is no such model or revision, it has no configuration or weights, the hub cannot be
            reached, or the disk is full.
    """
    config = _fetch(name, CONFIG, access)
    if config is None:
        raise SlimvoxError(
            f"{name}: there is no {CONFIG} in this repository; it is not a model that slimvox can read"
        )
    directory = config.parent
    check(directory)
    commit = dataclasses.replace(access, revision=directory.name)
    snapshot = _Snapshot(name=name, directory=directory, access=commit)
    snapshot.fetch_small_files()
    if weights:
        snapshot.fetch_weights()
    return directory


@dataclass(frozen=True, kw_only=True)
class _Snapshot:
    """The files of one commit of a model, as far as they are in the cache."""

    name: str
    directory: Path
    """Local directory of the commit, named after it."""
    access: HubAccess
    """Access with the commit as its revision."""

    def fetch_small_files(self) -> None:
        """Download the files that are read besides weights and configuration.

        Offline it is unknown whether a file that is not in the cache exists; if the weights of the same commit are in
        the cache, it is assumed not to.
        """
        has_weights = any((self.directory / name).is_file() for name in WEIGHT_FILES)
        is_whisper = read_json(self.directory / CONFIG).get("model_type") in ("whisper", WHISPER_MODEL_TYPE)
        for name in dict.fromkeys((*SMALL_FILES, *(WHISPER_FILES if is_whisper else ()))):
            try:
                self._fetch(name)
            except _UnreachableError:
                if not has_weights:
                    raise

    def fetch_weights(self) -> None:
        """Download the first weight file that exists, with its shards; files in the cache are preferred."""
        cached = [name for name in WEIGHT_FILES if (self.directory / name).is_file()]
        name = next((name for name in (*cached, *WEIGHT_FILES) if self._fetch(name) is not None), None)
        if name is None:
            raise SlimvoxError(
                f"{self.name}: there are no weights in this repository (model.safetensors or pytorch_model.bin, whole"
                " or in shards)"
            )
        if name.endswith(INDEX_SUFFIX):
            for shard in shard_names(self.directory / name):
                if self._fetch(shard) is None:
                    raise SlimvoxError(f"{self.name}: the shard {shard}, which {name} names, is missing")

    def _fetch(self, file: str) -> Path | None:
        from huggingface_hub import try_to_load_from_cache

        cache, commit = self.access.cache_dir, self.access.revision
        known = try_to_load_from_cache(self.name, file, cache_dir=cache, revision=commit)
        if known is not None:  # a path, or the marker for a file that does not exist
            return Path(known) if isinstance(known, str) else None
        return _fetch(self.name, file, self.access)


class _UnreachableError(SlimvoxError):
    """The hub cannot be reached, and the file is not in the cache."""


def _fetch(name: str, file: str, access: HubAccess) -> Path | None:
    """The path of one file in the cache, downloaded if necessary; None if the repository has no such file."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        with _note_if_slow(name, file):
            fetched = hf_hub_download(
                name,
                file,
                revision=access.revision,
                token=access.token,
                cache_dir=access.cache_dir,
                local_files_only=access.local_files_only,
            )
        return Path(fetched)
    except LocalEntryNotFoundError as error:
        raise _UnreachableError(_unreachable(name, cache_only=access.local_files_only)) from error
    except EntryNotFoundError:
        return None
    except GatedRepoError as error:
        raise SlimvoxError(
            f"{name}: the hub requires a login: request access there, and give a token or run `hf auth login`"
        ) from error
    except RevisionNotFoundError as error:
        raise SlimvoxError(
            f"{name}: there is no revision {access.revision!r} of this model on the hub"
        ) from error
    except (HFValidationError, RepositoryNotFoundError) as error:
        raise SlimvoxError(
            f"{name}: there is neither such a directory nor such a model on the Hugging Face hub; a private model needs"
            " a token: give it, or run `hf auth login`"
        ) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise SlimvoxError(
                f"{name}: {file} cannot be written to the cache of the hub: {error.strerror}; free some space, or set"
                " HF_HOME to a directory that can be written"
            ) from error
        raise _UnreachableError(f"{_unreachable(name)} ({reason_of(error)})") from error
    except Exception as error:  # errors of requests or httpx, by version of huggingface_hub
        raise _UnreachableError(f"{_unreachable(name)} ({type(error).__name__})") from error


@contextmanager
def _note_if_slow(name: str, file: str) -> Iterator[None]:
    """Log once what is waited for if the block takes long."""
    note = threading.Timer(
        NOTE_SECONDS, logger.warning, args=("%s: waiting for %s from the Hugging Face hub", name, file)
    )
    note.daemon = True
    note.start()
    try:
        yield
    finally:
        note.cancel()


def _unreachable(name: str, *, cache_only: bool = False) -> str:
    if cache_only:
        return f"{name}: there is no such directory, nor such a model in the cache of the hub (`local_files_only`)"
    return (
        f"{name}: there is no such directory, and the Hugging Face hub cannot be reached;"
        " give a local directory, or `embedded`"
    )
