"""Time of encoders in one runtime, for tables of latencies."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from slimvox.encoder import SpeechEncoder
from slimvox.exporters.signature import Layers
from slimvox.measure.benchmark.contenders import (
    TRANSFORMERS,
    backend_format,
    check_backend,
    load_module,
    noise,
    open_file,
)
from slimvox.measure.benchmark.files import ExportedFiles
from slimvox.structures.anatomy import SAMPLE_RATE_HZ
from slimvox.util.devices import torch_threads
from slimvox.util.errors import SlimvoxError
from slimvox.util.timing import seconds_in_turns


def encoder_milliseconds(
    encoders: Mapping[str, SpeechEncoder],
    *,
    backend: str = "torch",
    threads: int = 2,
    seconds: float = 10.0,
    batch: int = 1,
    rounds: int = 7,
    layers: Layers = "all",
    on_progress: Callable[[int], None] = lambda loaded: None,
) -> dict[str, tuple[float, ...]]:
    """Time encoders in a backend of `slimvox benchmark`, in this process, without the checks of an export.

    The encoders take turns, after a warm-up round. An encoder without layers (`anatomy.layers == ()`) times the front
    end, and one with a single layer that layer with it.

    Args:
        encoders: encoders by name, on the CPU; one that occurs under several names is loaded once.
        backend: `torch`, `torch-bf16`, or an export format with the precision that it has, such as openvino-int8.
        threads: number of CPU threads.
        seconds: length of each clip.
        batch: number of clips at once.
        rounds: number of timed runs of each encoder.
        layers: hidden states that an exported file returns.
        on_progress: called with the number of encoders that are loaded, or exported and opened, after each; exports
            take most of the time.

    Returns:
        milliseconds of every run, by name.

    Raises:
        SlimvoxError: if there is no such backend, its packages are not installed, or this processor lacks its
            precision.
    """
    if backend == TRANSFORMERS:
        raise SlimvoxError("`transformers` runs dense models only: time encoders in another backend")
    check_backend(backend)
    format = backend_format(backend)
    waveforms = noise(batch, round(seconds * SAMPLE_RATE_HZ))
    with TemporaryDirectory() as folder, torch_threads(threads):
        files, loaded = ExportedFiles(Path(folder), layers), {}
        for name, encoder in encoders.items():
            if encoder in loaded:
                continue
            if format is None:
                run = load_module(copy.deepcopy(encoder).eval(), backend).run
            else:
                file = files.file(name, partial(lambda given: given, encoder), format, backend)
                run = open_file(format, backend, file, threads)
            loaded[encoder] = partial(run, waveforms)
            on_progress(len(loaded))
        runs = {name: loaded[encoder] for name, encoder in encoders.items()}
        times = seconds_in_turns(runs, rounds)
    return {name: tuple(1000 * run for run in each) for name, each in times.items()}
