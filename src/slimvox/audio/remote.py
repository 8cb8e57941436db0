"""Files at `https://`, `s3://`, `gs://` and other URLs of fsspec; blocks that were read are cached on disk."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, TypeVar, cast

from slimvox.audio.recordings import PartedFile, Recording
from slimvox.util.environment import user_cache
from slimvox.util.errors import SlimvoxError
from slimvox.util.files import write_atomically

logger = logging.getLogger("slimvox.audio")

BLOCK_BYTES = 4 * 2**20
PATIENCE_SECONDS = 600.0
"""Time for which a request that fails because of the network is repeated."""
CACHE_BYTES = 20 * 2**30
"""Room for blocks on the disk, unless `SLIMVOX_BLOCK_CACHE_GB` is set; the oldest blocks are removed."""
_FIRST_WAIT_SECONDS, _LONGEST_WAIT_SECONDS = 0.5, 15.0
_SWEEPS_PER_LIMIT = 16
_NETWORK_TIMEOUT = {"sock_connect": 10.0, "sock_read": 30.0}
_TRANSIENT_STATUSES = (408, 425, 429)
_ERRORS = (
    ("aiohttp", "ClientError"),
    ("botocore.exceptions", "BotoCoreError"),
    ("botocore.exceptions", "ClientError"),
    ("gcsfs.retry", "HttpError"),
    ("google.auth.exceptions", "GoogleAuthError"),
)

_locks = [threading.Lock() for _ in range(64)]
_versions: dict[str, tuple[int, str]] = {}
"""Results of `_version`, for opening files many times."""
_T = TypeVar("_T")


class RemoteError(OSError):
    """A remote file that cannot be read, now or permanently; its text is a sentence without its subject."""


def is_remote(location: str | os.PathLike[str]) -> bool:
    """True if a location is a URL such as `s3://bucket/file`."""
    scheme, colon, _ = os.fspath(location).partition("://")
    return bool(colon) and scheme.isalnum()


@dataclass(frozen=True, slots=True)
class RemoteFile(Recording):
    """A file or folder by its URL; it has the attributes of a `Path` that readers of manifests use."""

    url: str

    def __fspath__(self) -> str:
        return self.url

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str | os.PathLike[str]) -> RemoteFile:
        return RemoteFile(f"{self.url.rstrip('/')}/{os.fspath(name).lstrip('/')}")

    @property
    def parent(self) -> RemoteFile:
        """The folder that the file is in."""
        return RemoteFile(self.url.rstrip("/").rpartition("/")[0])

    @property
    def suffixes(self) -> list[str]:
        """Extensions of the name, each with its dot."""
        return Path(self.name).suffixes

    @property
    def suffix(self) -> str:
        """Last extension of the name."""
        return Path(self.name).suffix

    def open(self) -> BinaryIO:
        """The file, fetched in blocks as it is read."""
        return cast(
            BinaryIO,
            io.BufferedReader(
                _BlockReader(self.url, *(_versions.get(self.url) or _version(self.url))), 1 << 16
            ),
        )

    def version(self) -> tuple[int, int]:
        """Size in bytes, and a number that changes with the content if the server provides one."""
        size, tag = _version(self.url)
        return size, int(sha256(tag.encode()).hexdigest()[:15], 16)

    def files(self) -> list[str]:
        """URLs of the files below a folder, sorted.

        Raises:
            RemoteError: it cannot be listed.
        """
        system, path = _system(self.url)
        found = _tried(self.url, lambda: system.find(path))
        return sorted(str(name) if is_remote(name) else system.unstrip_protocol(name) for name in found)


Place: TypeAlias = Path | RemoteFile
"""Location of a file that is not in an archive, or of a folder."""


class _BlockReader(PartedFile):
    """A remote file of which only the blocks that are read are fetched."""

    def __init__(self, url: str, size: int, tag: str) -> None:
        super().__init__(size)
        self._url = url
        self._folder = user_cache() / "blocks" / sha256(f"{url}\n{size}\n{tag}".encode()).hexdigest()[:32]
        self._number, self._block = -1, cast(BinaryIO, io.BytesIO())

    def read_part(self, at: int, count: int) -> bytes:
        """Read from a block, at most to its end."""
        number, place = divmod(at, BLOCK_BYTES)
        if number != self._number:
            self._block.close()
            self._number, self._block = number, self._opened_block(number)
        self._block.seek(place)
        return self._block.read(count)

    def close(self) -> None:
        """Close the block too."""
        self._block.close()
        super().close()

    def _opened_block(self, number: int) -> BinaryIO:
        start = number * BLOCK_BYTES
        stop = min(start + BLOCK_BYTES, self._size)
        kept = self._folder / f"{number}-{BLOCK_BYTES}"
        # Many threads may need the same block; only one fetches it.
        with _locks[hash((self._url, number)) % len(_locks)]:
            try:
                if os.path.getsize(kept) == stop - start:
                    return kept.open("rb")
            except OSError:
                pass
            block = _tried(self._url, lambda: self._fetched(start, stop))
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                write_atomically(kept, block)
                _sweeper.written(len(block))
            except OSError as error:
                logger.warning("Blocks of remote files are not kept on the disk: %s.", error)
        return io.BytesIO(block)

    def _fetched(self, start: int, stop: int) -> bytes:
        system, path = _system(self._url)
        content: bytes = system.cat_file(path, start=start, end=stop)
        if len(content) > stop - start:
            raise RemoteError("its server does not answer requests for ranges of bytes: download it first")
        if len(content) < stop - start:
            raise ConnectionError("the answer was cut short")
        return content


def _tried(url: str, request: Callable[[], _T]) -> _T:
    """The answer to a request, which is repeated with growing pauses while there is no network.

    Raises:
        FileNotFoundError: there is no such file.
        RemoteError: the server refuses it.
        SlimvoxError: there was no answer for `PATIENCE_SECONDS`.
    """
    began, pause = time.monotonic(), _FIRST_WAIT_SECONDS
    errors: tuple[type[Exception], ...] = (OSError, ValueError, RuntimeError, *_client_errors())
    while True:
        try:
            return request()
        except RemoteError:
            raise
        except errors as error:
            reason = _refusal(error)
            if isinstance(reason, FileNotFoundError):
                raise reason from error
            if reason is not None:
                raise reason from error
            if time.monotonic() - began > PATIENCE_SECONDS:
                raise SlimvoxError(
                    f"`{url}` gave no answer for {PATIENCE_SECONDS:g} s ({_text(error)}): run the same command again "
                    "when it can be reached."
                ) from error
            if pause == _FIRST_WAIT_SECONDS:
                logger.warning(
                    "`%s` cannot be reached (%s) and is tried again for %g s.",
                    url,
                    _text(error),
                    PATIENCE_SECONDS,
                )
        time.sleep(pause * random.uniform(0.8, 1.2))
        pause = min(2 * pause, _LONGEST_WAIT_SECONDS)


def _refusal(error: BaseException) -> OSError | None:
    """The error of a request that would fail again; None if trying again may help."""
    cause = _cause(error)
    status = _status(cause)
    if status == 404 or type(cause) is FileNotFoundError:
        return FileNotFoundError("its server has no such file (404)")
    if status is not None and 400 <= status < 500 and status not in _TRANSIENT_STATUSES:
        return RemoteError(f"its server refuses it (status {status}): check the address and the credentials")
    if isinstance(cause, PermissionError) or "credentials" in type(cause).__name__.lower():
        return RemoteError(f"its server refuses it ({_text(cause)}): check the address and the credentials")
    return RemoteError(_text(cause)) if type(cause) in (ValueError, RuntimeError) else None


def _cause(error: BaseException) -> BaseException:
    """The true error: fsspec says "not found" for a server that it could not reach, with what happened as the cause."""
    if type(error) is FileNotFoundError and error.__cause__ is not None:
        return error.__cause__
    return error


def _text(error: BaseException) -> str:
    error = _cause(error)
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")


def _status(error: BaseException) -> int | None:
    """Status of HTTP in an error of aiohttp, gcsfs or botocore, or in the cause that s3fs gives for its own."""
    for each in (error, error.__cause__):
        response = getattr(each, "response", None)
        if isinstance(response, dict):
            return cast("int | None", response.get("ResponseMetadata", {}).get("HTTPStatusCode"))
        status = getattr(each, "status", None) or getattr(each, "code", None)
        if isinstance(status, int):
            return status
    return None


def _client_errors() -> tuple[type[Exception], ...]:
    """Errors of the imported packages that fsspec uses, which are none of Python's own."""
    modules = [(sys.modules.get(module), name) for module, name in _ERRORS]
    return tuple(getattr(module, name) for module, name in modules if module is not None)


def _version(url: str) -> tuple[int, str]:
    """Size of a remote file in bytes, and a text that changes with its content if the server provides one."""
    system, path = _system(url)

    def ask() -> dict[str, Any]:
        system.invalidate_cache()
        return cast("dict[str, Any]", system.info(path))

    found = _tried(url, ask)
    if found.get("size") is None:
        raise RemoteError("its server does not say how long it is: download it first")
    tags = (
        found.get(name) for name in ("ETag", "etag", "md5Hash", "Last-Modified", "LastModified", "updated")
    )
    _versions[url] = int(found["size"]), next((str(tag) for tag in tags if tag), "")
    return _versions[url]


def _system(url: str) -> tuple[Any, str]:
    """File system of fsspec for a URL, and its name of the file.

    Raises:
        SlimvoxError: if the packages are not installed, or fsspec does not know the protocol.
    """
    scheme = url.partition("://")[0]
    options: dict[str, Any] = {}
    try:
        import fsspec

        if scheme in ("http", "https"):
            from aiohttp import ClientTimeout

            options = {"client_kwargs": {"timeout": ClientTimeout(total=None, **_NETWORK_TIMEOUT)}}
        system = fsspec.filesystem(scheme, **options)
    except ImportError as error:
        raise SlimvoxError(
            f'`{url}` needs packages that are not installed: pip install "slimvox[remote]"'
        ) from error
    except ValueError as error:
        raise SlimvoxError(f"`{url}` cannot be read, because fsspec has no protocol `{scheme}`.") from error
    return system, system._strip_protocol(url)


class _Sweeper:
    """Deletes the oldest blocks if all blocks exceed their limit."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._written = float("inf")

    def written(self, size: int) -> None:
        """Check all blocks at the first call, and whenever much has been written since."""
        limit = float(os.environ.get("SLIMVOX_BLOCK_CACHE_GB") or CACHE_BYTES / 2**30) * 2**30
        with self._lock:
            self._written += size
            if self._written < limit / _SWEEPS_PER_LIMIT:
                return
            self._written = 0
            self._sweep(limit)

    @staticmethod
    def _sweep(limit: float) -> None:
        blocks = []
        for folder, _, names in os.walk(user_cache() / "blocks"):
            for name in names:
                # Another process may have removed it.
                with contextlib.suppress(FileNotFoundError):
                    status = os.stat(path := os.path.join(folder, name))
                    blocks.append((status.st_mtime_ns, status.st_size, path))
        room = limit - sum(size for _, size, _ in blocks)
        for _, size, path in sorted(blocks):
            if room >= 0:
                break
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            room += size


_sweeper = _Sweeper()
