"""Interleaved runs of contenders, so that other load on the machine affects all of them alike."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import torch

from slimvox.checkpoint import Model, load, on_disk
from slimvox.checkpoint.directory import is_slimvox_directory
from slimvox.checkpoint.resolve import find_anatomies, find_model
from slimvox.checkpoint.tensors import weight_files
from slimvox.checkpoint.transformers_config import transformers_config
from slimvox.costs import macs, parameters
from slimvox.measure.benchmark.blocks import REST, block_costs, median_blocks, name_in_results
from slimvox.measure.benchmark.contenders import (
    TORCH_BACKENDS,
    TRANSFORMERS,
    Contender,
    backend_format,
    check_backend,
    short_names,
)
from slimvox.measure.benchmark.files import ExportedFiles
from slimvox.measure.benchmark.result import BenchmarkResult, ContenderReport, Measurement, machine
from slimvox.measure.benchmark.worker import Worker
from slimvox.structures.anatomy import SAMPLE_RATE_HZ, EncoderAnatomy
from slimvox.util.devices import Device, find_device
from slimvox.util.environment import hub_token
from slimvox.util.errors import SlimvoxError
from slimvox.util.validation import Count, Range, Threads, checked_arguments

ClipSeconds = Annotated[float, Range(at_least=0.1, at_most=1e9)]
WARM_UP_RUNS = 2
BLOCK_RUNS = 3


@checked_arguments
def benchmark(
    models: Model | Sequence[Model],
    *,
    against: Model | None = None,
    dense: bool = True,
    seconds: Sequence[ClipSeconds] = (2.0, 10.0, 30.0),
    batch: Sequence[Count] = (1,),
    backends: Sequence[str] = ("torch",),
    threads: Threads | Sequence[Threads] = (2,),
    runs: Count = 7,
    device: Device = "cpu",
    token: str | None = None,
    on_progress: Callable[[str], None] = lambda _: None,
) -> BenchmarkResult:
    """Measure encoders against each other, and against the dense models that they were pruned from.

    Args:
        models: models to measure: `embedded`, directories, or model ids on the Hugging Face hub, also
            MODEL@REVISION. In Python also encoders and models of `transformers`.
        against: reference model: a slimvox directory, run by slimvox in float32, or another model, run by
            `transformers`. By default, the dense model of the first of `models`, in `transformers`.
        dense: also measure the dense model of each pruned one in the same backends, to show how much of a speed-up
            comes from pruning and how much from the runtime. If only the pruned encoder exists, the dense model gets
            random weights.
        seconds: lengths of the clips in seconds.
        batch: batch sizes.
        backends: backends for each model: any of torch, torch-bf16, transformers, or an export format (onnx,
            onnx-int8, torch-export, openvino, openvino-bf16, openvino-int8, executorch).
        threads: numbers of CPU threads per measured process.
        runs: number of timed runs per model, backend, length, batch size and number of threads.
        device: device of the backends in torch; only these can be measured on a GPU.
        token: access token for the hub; by default the one in HF_TOKEN, or the one that `hf auth login` stored.
        on_progress: called with a short text about the current work.

    Raises:
        SlimvoxError: if a model cannot be loaded, or an argument is out of range.
    """
    given = [models] if isinstance(models, (str, os.PathLike, torch.nn.Module)) else list(models)  # type: ignore[arg-type]
    counts = list(dict.fromkeys([threads] if isinstance(threads, int) else threads))
    place = find_device(device).type
    _check(given, seconds, batch, backends, counts, place)
    block_seconds = min(seconds, key=lambda length: abs(length - 10.0))
    with TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        stack.enter_context(hub_token(token))
        names = [str(stack.enter_context(on_disk(model))) for model in given]
        reference = None if against is None else str(stack.enter_context(on_disk(against)))
        entries = contenders_of(names, reference, backends, Path(temporary), with_dense=dense)
        files = ExportedFiles(Path(temporary))
        exported = [_exported(each, files, on_progress) for each, _ in entries]
        del files
        measurements: list[Measurement] = []
        for count in counts:
            with contextlib.ExitStack() as running:
                workers, first_calls = [], []
                for contender in exported:
                    on_progress(f"loading {contender.label}")
                    worker = running.enter_context(contextlib.closing(Worker(contender, count, place)))
                    first_calls.append(worker.run(1, _samples(block_seconds))[0] / 1000)
                    workers.append(worker)
                for size in batch:
                    for length in seconds:
                        on_progress(f"{size} x {length:g} s, {count} threads")
                        measurements += _interleaved(workers, size, length, count, runs)
                reports = [
                    _report(worker, block_seconds, first_call, counterpart)
                    for worker, first_call, (_, counterpart) in zip(
                        workers, first_calls, entries, strict=True
                    )
                ]
    return BenchmarkResult(
        machine=machine(counts[-1], place),
        reference=entries[0][0].label,
        block_seconds=block_seconds,
        contenders=tuple(reports),
        measurements=tuple(measurements),
    )


def _check(
    models: Sequence[Any],
    seconds: Sequence[float],
    batch: Sequence[int],
    backends: Sequence[str],
    threads: Sequence[int],
    device: str,
) -> None:
    if not models or not backends:
        raise SlimvoxError("there must be a model and a backend to measure")
    if not seconds or not batch or not threads:
        raise SlimvoxError(
            "there must be a length, a batch size and a number of threads to measure, such as 2,10,30 and 1,8 and 2"
        )
    for backend in backends:
        check_backend(backend)
        if device != "cpu" and backend not in TORCH_BACKENDS:
            raise SlimvoxError(
                f"`backends` has {backend}, which runs on the CPU: leave it out, or `device` {device}"
            )


def contenders_of(
    models: Sequence[str],
    against: str | None,
    backends: Sequence[str],
    folder: Path,
    *,
    with_dense: bool,
) -> list[tuple[Contender, str | None]]:
    """Contenders to measure with the labels of their dense counterparts; the reference first, without duplicates."""
    names = short_names([*models, *([] if against is None else [against])])
    anatomies = {model: find_anatomies(model) for model in names}
    dense_models = {dense: model for model, (own, dense) in reversed(anatomies.items()) if own == dense}
    random_models: dict[EncoderAnatomy, str] = {}

    def random_model(model: str) -> str:
        anatomy = anatomies[model][1]
        if anatomy not in random_models:
            written = random_models[anatomy] = _random_model(anatomy, folder / f"dense-{len(random_models)}")
            names[written], anatomies[written] = f"{names[model]} dense", (anatomy, anatomy)
        return random_models[anatomy]

    def dense_model(model: str, backend: str) -> str:
        """The dense model of a model; with random weights if it is not one of those to be measured."""
        dense = dense_models.get(anatomies[model][1]) or random_model(model)
        unreadable = backend == TRANSFORMERS and is_slimvox_directory(find_model(dense))
        return random_model(model) if unreadable else dense

    pairs: dict[tuple[str, str], None] = {}
    if against is None:
        pairs[dense_model(models[0], TRANSFORMERS), TRANSFORMERS] = None
    else:
        pairs[against, "torch" if is_slimvox_directory(find_model(against)) else TRANSFORMERS] = None
    for model in models:
        if with_dense:
            pairs |= {(dense_model(model, backend), backend): None for backend in backends}
        pairs |= {
            (dense_model(model, backend) if backend == TRANSFORMERS else model, backend): None
            for backend in backends
        }
    contenders = {
        pair: Contender(
            model=pair[0],
            backend=pair[1],
            name=names[pair[0]]
            + (" dense" if pair[1] == TRANSFORMERS and pair[0] in (*models, against) else ""),
        )
        for pair in pairs
    }
    counterparts = {
        (anatomies[model][1], backend): each.label
        for (model, backend), each in contenders.items()
        if len({*anatomies[model]}) == 1
    }
    return [
        (each, counterparts.get((anatomies[model][1], backend)))
        for (model, backend), each in contenders.items()
    ]


def _random_model(anatomy: EncoderAnatomy, directory: Path) -> str:
    """A directory with the dense model in `transformers`, random weights: speed does not depend on them."""
    from transformers import AutoModel
    from transformers.utils import logging

    shows_progress = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        AutoModel.from_config(transformers_config(anatomy)).save_pretrained(directory)
    finally:
        if shows_progress:
            logging.enable_progress_bar()
    settings = json.dumps({"do_normalize": anatomy.normalize_waveform})
    (directory / "preprocessor_config.json").write_text(settings)
    return str(directory)


def _exported(contender: Contender, files: ExportedFiles, on_progress: Callable[[str], None]) -> Contender:
    """The contender with its exported file, if it needs one."""
    format = backend_format(contender.backend)
    if format is None:
        return contender
    on_progress(f"exporting {contender.label}")
    file = files.file(contender.model, lambda: load(contender.model), format, contender.backend)
    return dataclasses.replace(contender, file=file, format=format)


def _interleaved(
    workers: Sequence[Worker], batch: int, seconds: float, threads: int, runs: int
) -> list[Measurement]:
    """Times of rounds in which every contender runs once, each round starting with another contender."""
    samples = _samples(seconds)
    for worker in workers:
        for _ in range(WARM_UP_RUNS):
            worker.run(batch, samples)
    found: list[list[tuple[float, float | None]]] = [[] for _ in workers]
    for number in range(runs):
        for place in range(len(workers)):
            index = (number + place) % len(workers)
            found[index].append(workers[index].run(batch, samples))
    measurements = []
    for worker, each in zip(workers, found, strict=True):
        joules = [energy for _, energy in each if energy is not None]
        measurements.append(
            Measurement(
                label=worker.contender.label,
                batch=batch,
                seconds=seconds,
                threads=threads,
                milliseconds=tuple(time for time, _ in each),
                joules=statistics.median(joules) if joules else None,
            )
        )
    return measurements


def _samples(seconds: float) -> int:
    return round(seconds * SAMPLE_RATE_HZ)


def _report(worker: Worker, seconds: float, first_call: float, dense: str | None) -> ContenderReport:
    contender = worker.contender
    anatomy, _ = find_anatomies(contender.model)
    memory = worker.peak_memory_bytes()
    runs = [worker.blocks(1, _samples(seconds)) for _ in range(BLOCK_RUNS)]
    blocks = None
    if all(run is not None for run in runs):
        costs = block_costs(anatomy, seconds)
        times = median_blocks([run for run in runs if run is not None])
        blocks = {
            name_in_results(kind): {"parameters": cost[0], "macs": cost[1], "milliseconds": times[kind]}
            for kind, cost in {**costs, REST.kind: (0, 0)}.items()
        }
    return ContenderReport(
        label=contender.label,
        model=Path(contender.model).name,
        backend=contender.backend,
        parameters=parameters(anatomy),
        macs_10s=macs(anatomy, 10.0),
        dense=dense,
        file_bytes=_file_bytes(contender),
        import_seconds=worker.import_seconds,
        load_seconds=worker.load_seconds,
        first_call_seconds=first_call,
        peak_memory_bytes=memory,
        blocks=blocks,
    )


def _file_bytes(contender: Contender) -> int:
    """Size of the exported files, or of the files that a directory's weights are read from."""
    if contender.file is None or contender.format is None:
        return sum(file.stat().st_size for file in weight_files(find_model(contender.model)))
    files = [contender.file, contender.format.companion(contender.file)]
    return sum(file.stat().st_size for file in files if file.exists())
