"""The processes of a run, among which results, errors and requests to stop are shared."""

from __future__ import annotations

import contextlib
import io
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor

from slimvox.util.errors import SlimvoxError, reason_of

Result = TypeVar("Result")


class Processes:
    """All processes of a run: one, or as many as `torchrun` started.

    Only the main process touches the run's directory, so that the others need not see the same disk. Each method is
    called by all processes at the same point of the run.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.count: int = accelerator.num_processes
        self.main: bool = accelerator.is_main_process
        self._device: torch.device = accelerator.device

    def on_main(self, work: Callable[[], Result]) -> Result:
        """Call `work` only in the main process, and return its result, on the CPU, in all of them.

        Raises:
            Exception: the exception of `work` in the main process; a `SlimvoxError` with the same message in the
                others.
        """
        if self.count == 1:
            return work()
        failure: Exception | None = None
        contents: list[Tensor] = []
        received: list[Any] = [None]
        if self.main:
            try:
                packer = _Packer(packed := io.BytesIO())
                packer.dump(work())
                received, contents = [(None, packed.getvalue())], packer.contents
            except Exception as error:
                failure = error
                received = [(_message(error), b"")]
        with _connection():
            dist.broadcast_object_list(received, device=self._device)
        message, content = received[0]
        if failure is not None:
            raise failure
        if message is not None:
            raise SlimvoxError(message)
        following = iter(contents)
        return _Unpacker(content, lambda size: self._received(size, next(following, None))).load()  # type: ignore[no-any-return]

    def together(self, work: Callable[[], Result]) -> Result:
        """Call `work` in every process, and return its own result in each.

        Raises:
            Exception: the exception of `work`; if it was raised only in others, a `SlimvoxError` with the same message.
        """
        results: list[Result] = []
        self.gather(lambda: results.append(work()))
        return results[0]

    def gather(self, work: Callable[[], Result]) -> list[Result]:
        """Call `work` in every process, and return the results of all, which are small, in all of them.

        Raises:
            Exception: the exception of `work`; if it was raised only in others, a `SlimvoxError` with the same message.
        """
        if self.count == 1:
            return [work()]
        failure: Exception | None = None
        own: tuple[str | None, Result | None] = (None, None)
        try:
            own = (None, work())
        except Exception as error:
            failure = error
            own = (_message(error), None)
        received: list[Any] = [None] * self.count
        with _connection():
            dist.all_gather_object(received, own)
        if failure is not None:
            raise failure
        for message, _ in received:
            if message is not None:
                raise SlimvoxError(message)
        return [result for _, result in received]

    def agree(self, content: dict[str, Any], advice: str) -> None:
        """Raise a `SlimvoxError` in all processes unless `content` is the same in all of them."""
        if self.count == 1:
            return
        all_of_them = self.gather(lambda: content)
        first = all_of_them[0]
        differing = {
            key for each in all_of_them for key in {*first, *each} if first.get(key) != each.get(key)
        }
        if differing:
            raise SlimvoxError(
                f"the {self.count} processes differ in {', '.join(sorted(differing))}; {advice}"
            )

    def mean(self, values: Sequence[float]) -> list[float]:
        """Mean of each value over the processes."""
        if self.count == 1:
            return list(values)
        total = torch.tensor(list(values), dtype=torch.float32, device=self._device)
        self.add(total)
        return [float(value) / self.count for value in total.tolist()]

    def add(self, tensor: Tensor) -> None:
        """Replace a tensor of the device by its sum over the processes."""
        if self.count > 1:
            with _connection():
                dist.all_reduce(tensor)

    def any(self, flag: bool) -> bool:
        """True if the flag is set in any process."""
        return self.mean([float(flag)])[0] > 0

    def _received(self, size: int, data: Tensor | None) -> Tensor:
        """Bytes of the main process, (size,) uint8, in all processes."""
        moved = torch.empty(size, dtype=torch.uint8, device=self._device)
        if data is not None:
            moved.copy_(data)
        if size:
            with _connection():
                dist.broadcast(moved, src=0)
        return moved.cpu()


class _Packer(pickle.Pickler):
    """Pickles a value without the contents of its tensors and arrays, which are sent separately."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.contents: list[Tensor] = []

    def persistent_id(self, value: Any) -> tuple[Any, ...] | None:
        """Kind, data type and shape of a tensor or array; None for other values, which are pickled."""
        if isinstance(value, Tensor):
            data = value.detach().contiguous().reshape(-1).view(torch.uint8)
            kind: tuple[Any, ...] = (value.dtype, tuple(value.shape))
        elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
            flat = np.require(value, requirements=("C", "W")).reshape(-1)
            data, kind = torch.from_numpy(flat.view(np.uint8)), (value.dtype, value.shape)
        else:
            return None
        self.contents.append(data)
        return (*kind, len(data))


class _Unpacker(pickle.Unpickler):
    """The reverse of `_Packer`."""

    def __init__(self, packed: bytes, contents: Callable[[int], Tensor]) -> None:
        super().__init__(io.BytesIO(packed))
        self._contents = contents

    def persistent_load(self, about: Any) -> Any:
        """The next tensor or array; its contents come in the order in which they were packed."""
        dtype, shape, size = about
        data = self._contents(size)
        if isinstance(dtype, torch.dtype):
            return data.view(dtype).reshape(shape)
        return data.numpy().view(dtype).reshape(shape)


@contextlib.contextmanager
def _connection() -> Iterator[None]:
    """Context for communication, in which a `SlimvoxError` is raised if another process has ended."""
    try:
        yield
    except RuntimeError as error:
        raise SlimvoxError(
            "another process ended (killed, or out of memory?), so this one stops as well; the last checkpoint is"
            f" kept: repeat the same command to resume ({reason_of(error)})"
        ) from error


def _message(error: Exception) -> str:
    if isinstance(error, SlimvoxError):
        return str(error)
    return f"another process failed: {type(error).__name__}: {reason_of(error)}"
