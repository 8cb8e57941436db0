"""Interleaved runs of contenders, so that other load on the machine affects all of them alike."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import torch

from slimvox.checkpoint import Model, on_disk
from slimvox.checkpoint.directory import is_slimvox_directory
from slimvox.checkpoint.resolve import find_anatomies, find_model
from slimvox.costs import macs, parameters
from slimvox.exporters import export_encoder
from slimvox.measure.benchmark.blocks import block_costs, median_blocks
from slimvox.measure.benchmark.contenders import BF16, INT8, Contender, backend_format, short_names
from slimvox.measure.benchmark.result import BenchmarkResult, ContenderReport, Measurement, machine
from slimvox.measure.benchmark.worker import Worker
from slimvox.util.errors import SlimvoxError
from slimvox.util.hub_token import hub_token
from slimvox.util.validation import Count, Range, Threads, checked_arguments

ClipSeconds = Annotated[float, Range(at_least=0.1, at_most=1e9)]
WARM_UP_RUNS = 2
BLOCK_RUNS = 3


@checked_arguments
def benchmark(
    models: Model | Sequence[Model],
    *,
    against: Model | None = None,
    seconds: Sequence[ClipSeconds] = (2.0, 10.0, 30.0),
    batch: Sequence[Count] = (1,),
    backends: Sequence[str] = ("torch",),
    threads: Threads = 2,
    runs: Count = 7,
    token: str | None = None,
    on_progress: Callable[[str], None] = lambda _: None,
) -> BenchmarkResult:
    """Measure encoders against each other on the CPU.

    Args:
        models: models to measure: `embedded`, directories, or model ids on the Hugging Face hub, also
            MODEL@REVISION. In Python also encoders and models of `transformers`.
        against: reference model: a slimvox directory, run by slimvox in float32, or another model, run by
            `transformers`. By default, the dense model of the first of `models`, in `transformers`.
        seconds: lengths of the clips in seconds.
        batch: batch sizes.
        backends: backends for each model: any of torch, torch-bf16, transformers, or an export format (onnx,
            onnx-int8, torch-export, openvino, openvino-bf16, openvino-int8).
        threads: number of CPU threads per measured process.
        runs: number of timed runs per model, backend, length and batch size.
        token: access token for the hub; by default the one in HF_TOKEN, or the one that `hf auth login` stored.
        on_progress: called with a short text about the current work.

    Raises:
        SlimvoxError: if a model cannot be loaded, or an argument is out of range.
    """
    given = [models] if isinstance(models, (str, os.PathLike, torch.nn.Module)) else list(models)  # type: ignore[arg-type]
    _check(given, seconds, batch, backends)
    with TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        stack.enter_context(hub_token(token))
        names = [stack.enter_context(on_disk(model)) for model in given]
        reference = None if against is None else stack.enter_context(on_disk(against))
        contenders = [
            _exported(contender, Path(temporary), on_progress)
            for contender in _contenders(names, reference, backends)
        ]
        workers = []
        for contender in contenders:
            on_progress(f"loading {contender.label}")
            workers.append(stack.enter_context(contextlib.closing(Worker(contender, threads))))
        measurements = []
        for size in batch:
            for length in seconds:
                on_progress(f"{size} x {length:g} s")
                measurements += _interleaved(workers, size, length, runs)
        block_seconds = min(seconds, key=lambda length: abs(length - 10.0))
        reports = [_report(worker, block_seconds) for worker in workers]
    return BenchmarkResult(
        machine=machine(threads),
        reference=contenders[0].label,
        block_seconds=block_seconds,
        contenders=tuple(reports),
        measurements=tuple(measurements),
    )


def _check(
    models: Sequence[Any],
    seconds: Sequence[float],
    batch: Sequence[int],
    backends: Sequence[str],
) -> None:
    if not models or not backends:
        raise SlimvoxError("there must be a model and a backend to measure")
    if not seconds or not batch:
        raise SlimvoxError("there must be a length and a batch size to measure, such as 2,10,30 and 1,8")
    for backend in backends:
        format = backend_format(backend)
        if format is not None:
            format.require((*format.packages_to_write, *format.packages_to_run))
            if backend == format.name + BF16:
                format.check_bf16()


def _contenders(
    models: Sequence[str | os.PathLike[str]],
    against: str | os.PathLike[str] | None,
    backends: Sequence[str],
) -> list[Contender]:
    """Contenders to measure, the reference first, without duplicates."""
    names = short_names(str(model) for model in [*models, *([] if against is None else [against])])
    pairs = [(str(models[0] if against is None else against), _reference_backend(against))]
    pairs += [(str(model), backend) for model in models for backend in backends]
    return [
        Contender(model=model, backend=backend, name=names[model]) for model, backend in dict.fromkeys(pairs)
    ]


def _reference_backend(against: str | os.PathLike[str] | None) -> str:
    pruned = against is not None and is_slimvox_directory(find_model(against))
    return "torch" if pruned else "transformers"


def _exported(contender: Contender, folder: Path, on_progress: Callable[[str], None]) -> Contender:
    """The contender with its exported file, if it needs one."""
    format = backend_format(contender.backend)
    if format is None:
        return contender
    on_progress(f"exporting {contender.label}")
    file = folder / f"{len(list(folder.iterdir()))}{format.ending}"
    int8 = contender.backend == format.name + INT8
    export_encoder(contender.model, out=file, format=format.name, int8=int8, force=True)
    return dataclasses.replace(contender, file=file, format=format)


def _interleaved(workers: Sequence[Worker], batch: int, seconds: float, runs: int) -> list[Measurement]:
    """Times of rounds in which every contender runs once, each round starting with another contender."""
    for worker in workers:
        for _ in range(WARM_UP_RUNS):
            worker.milliseconds(batch, seconds)
    times: list[list[float]] = [[] for _ in workers]
    for number in range(runs):
        for place in range(len(workers)):
            index = (number + place) % len(workers)
            times[index].append(workers[index].milliseconds(batch, seconds))
    return [
        Measurement(label=worker.contender.label, batch=batch, seconds=seconds, milliseconds=tuple(each))
        for worker, each in zip(workers, times, strict=True)
    ]


def _report(worker: Worker, seconds: float) -> ContenderReport:
    contender = worker.contender
    pruned, dense = find_anatomies(contender.model)
    anatomy = dense if contender.backend == "transformers" else pruned
    memory = worker.peak_memory_bytes()
    runs = [worker.blocks(1, seconds) for _ in range(BLOCK_RUNS)]
    blocks = None
    if all(run is not None for run in runs):
        costs = block_costs(anatomy, seconds)
        times = median_blocks([run for run in runs if run is not None])
        blocks = {
            block: {"parameters": cost[0], "macs": cost[1], "milliseconds": times[block]}
            for block, cost in costs.items()
        }
        blocks["rest"] = {"parameters": 0, "macs": 0, "milliseconds": times["rest"]}
    return ContenderReport(
        label=contender.label,
        model=Path(contender.model).name,
        backend=contender.backend,
        parameters=parameters(anatomy),
        macs_10s=macs(anatomy, 10.0),
        peak_memory_bytes=memory,
        blocks=blocks,
    )
