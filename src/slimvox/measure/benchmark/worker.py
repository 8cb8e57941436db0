"""A process that holds one contender and runs it on request."""

from __future__ import annotations

import multiprocessing
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from slimvox.measure.benchmark.contenders import Contender, Loaded, import_runtime, load_contender, noise
from slimvox.measure.benchmark.energy import joules_since, read_counters
from slimvox.util.environment import environment_variable
from slimvox.util.errors import SlimvoxError, reason_of

_SECONDS_TO_END = 5.0


class Worker:
    """A worker process; its methods wait for the answer.

    Raises:
        SlimvoxError: if the contender cannot be loaded or a run fails there.
    """

    import_seconds: float
    """Time to import the runtime."""
    load_seconds: float
    """Time to load the model."""

    def __init__(self, contender: Contender, threads: int, device: str = "cpu") -> None:
        self.contender = contender
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, contender, threads, device), daemon=True)
        with environment_variable("OMP_NUM_THREADS", str(threads)):
            self._process.start()
        other.close()
        self.import_seconds, self.load_seconds = self._answer()

    def run(self, batch: int, samples: int) -> tuple[float, float | None]:
        """Encode `batch` clips of `samples` samples once.

        Returns:
            milliseconds, and the joules that the processor has used meanwhile, None if it does not count them.
        """
        return self._ask(("run", batch, samples))  # type: ignore[no-any-return]

    def blocks(self, batch: int, samples: int) -> dict[str, float] | None:
        """Milliseconds by kind of block in one run; None if the backend has no blocks."""
        return self._ask(("blocks", batch, samples))  # type: ignore[no-any-return]

    def peak_memory_bytes(self) -> int:
        """The most memory that the process has held so far, libraries and weights included; on a GPU, the most that
        torch has held there.
        """
        return int(self._ask(("memory",)))

    def close(self) -> None:
        """End the process: it ends by itself when the connection is closed, and is stopped if it is busy for long."""
        self._connection.close()
        self._process.join(_SECONDS_TO_END)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join()

    def _ask(self, request: tuple[Any, ...]) -> Any:
        self._connection.send(request)
        return self._answer()

    def _answer(self) -> Any:
        try:
            error, answer = self._connection.recv()
        except EOFError:
            self._process.join()
            raise SlimvoxError(
                f"{self.contender.label}: its process ended (exit status {self._process.exitcode});"
                " there may be too little memory for this length and batch"
            ) from None
        if error:
            raise SlimvoxError(f"{self.contender.label}: {error}")
        return answer


def _serve(connection: Connection, contender: Contender, threads: int, device: str) -> None:
    try:
        began = time.perf_counter()
        import_runtime(contender)
        imported = time.perf_counter()
        loaded = load_contender(contender, threads, device)
        loaded.wait()
    except Exception as error:
        connection.send((_sentence(error), None))
        return
    connection.send((None, (imported - began, time.perf_counter() - imported)))
    while True:
        try:
            request = connection.recv()
        except (EOFError, KeyboardInterrupt):
            return
        try:
            connection.send((None, _handle(request, loaded)))
        except KeyboardInterrupt:
            return
        except Exception as error:
            connection.send((_sentence(error), None))


def _handle(request: tuple[Any, ...], loaded: Loaded) -> Any:
    if request[0] == "memory":
        return _peak_memory_bytes(loaded)
    waveforms = noise(*request[1:])
    if request[0] == "run":
        before, began = read_counters(), time.perf_counter()
        loaded.run(waveforms)
        loaded.wait()
        return (time.perf_counter() - began) * 1000, joules_since(before)
    if loaded.module is None:
        return None
    from slimvox.measure.benchmark.blocks import REST, BlockTimer, block_modules

    modules = ((block.kind, part) for block, part in block_modules(loaded.module))
    with BlockTimer(modules, loaded.wait) as timer:
        began = time.perf_counter_ns()
        loaded.run(waveforms)
        loaded.wait()
        whole = time.perf_counter_ns() - began
    rest = whole - sum(timer.nanoseconds.values())
    return {kind: each / 1e6 for kind, each in {**timer.nanoseconds, REST.kind: rest}.items()}


def _peak_memory_bytes(loaded: Loaded) -> int:
    if loaded.module is not None and next(loaded.module.parameters()).is_cuda:
        import torch

        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.is_file():
        # Not ru_maxrss, because on Linux it includes the memory of the parent at the time of the fork.
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _sentence(error: Exception) -> str:
    return str(error) if isinstance(error, SlimvoxError) else f"{type(error).__name__}: {reason_of(error)}"
