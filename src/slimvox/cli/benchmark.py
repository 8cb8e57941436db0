"""`slimvox benchmark`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, TypeVar

import tyro
from rich.console import Console
from rich.table import Table

from slimvox.cli.command import command
from slimvox.cli.options import HubOptions
from slimvox.util.errors import SlimvoxError
from slimvox.util.output_paths import check_output_file
from slimvox.util.quantities import short_number
from slimvox.util.validation import Count, Threads

if TYPE_CHECKING:
    from slimvox.measure.benchmark import BenchmarkResult, Measurement


Number = TypeVar("Number", int, float)


@command()
class BenchmarkCommand(HubOptions):
    """Measure the speed of encoders, interleaved with the dense model in `transformers`."""

    models: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="MODEL...")]
    """Models to measure: `embedded`, directories, or model ids on the Hugging Face hub."""
    against: Annotated[str | None, tyro.conf.arg(metavar="MODEL")] = None
    """Reference model: a directory or model id. By default, the dense model of the first MODEL, in `transformers`."""
    seconds: Annotated[str, tyro.conf.arg(metavar="S,S,...")] = "2,10,30"
    """Lengths of the clips in seconds."""
    batch: Annotated[str, tyro.conf.arg(metavar="N,N,...")] = "1"
    """Batch sizes."""
    threads: Threads = 2
    """Number of CPU threads per measured process."""
    backends: Annotated[str, tyro.conf.arg(metavar="NAME,...")] = "torch"
    """Backends for each model: any of torch, torch-bf16, transformers, or an export format (onnx, onnx-int8)."""
    runs: Count = 7
    """Number of timed runs per model, backend, length and batch size."""
    json: bool = False
    """Print JSON with the time of every run."""
    out: Path | None = None
    """File for the results as JSON, in addition to the printed ones."""

    imports: ClassVar[tuple[str, ...]] = ("slimvox.measure.benchmark",)

    def run(self, console: Console) -> None:
        """Run the command."""
        from slimvox.measure.benchmark import benchmark

        if self.out is not None:
            check_output_file(self.out, "--out")
        with Console(stderr=True).status("loading") as status:
            result = benchmark(
                self.models,
                against=self.against,
                seconds=_numbers("seconds", self.seconds, float),
                batch=_numbers("batch", self.batch, int),
                threads=self.threads,
                backends=[name.strip() for name in self.backends.split(",")],
                runs=self.runs,
                on_progress=status.update,
            )
        text = json.dumps(result.to_dict(), indent=1)
        if self.out is not None:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            self.out.write_text(text + "\n")
        if self.json:
            print(text)
        else:
            print_benchmark(console, result)


def print_benchmark(console: Console, result: BenchmarkResult) -> None:
    """Print tables of times, sizes and blocks, and name the measurements that are not faster than the reference."""
    machine = result.machine
    console.print(
        f"{machine['processor']}, {machine['threads']} threads, torch {machine['torch']}; medians of"
        f" {len(result.measurements[0].milliseconds)} interleaved runs on noise, ± half the quartiles' distance",
        soft_wrap=True,
    )
    times = Table(title="Time", title_justify="left")
    for column in ("model", "clips", "ms", "±", "real-time factor", "speed-up"):
        times.add_column(column, justify="left" if column in ("model", "clips") else "right")
    for number, contender in enumerate(result.contenders):
        if number:
            times.add_section()
        own = [measured for measured in result.measurements if measured.label == contender.label]
        for place, measured in enumerate(own):
            times.add_row("" if place else measured.label, *_row(result, measured))
    console.print(times)
    memory = Table(title="Size", title_justify="left")
    for column in ("model", "parameters", "MACs/10 s", "peak memory"):
        memory.add_column(column, justify="left" if column == "model" else "right")
    for contender in result.contenders:
        peak = f"{contender.peak_memory_bytes / 2**30:.2f} GiB" if contender.peak_memory_bytes else "?"
        memory.add_row(
            contender.label, short_number(contender.parameters), short_number(contender.macs_10s), peak
        )
    console.print(memory)
    _print_blocks(console, result)
    slower = result.slower()
    reference = result.reference
    for measured in slower:
        console.print(
            f"[bold]not faster:[/] {measured.label} takes {1 / result.speedup(measured):.2f} times as long as"
            f" {reference} for {_clips(measured)}",
            soft_wrap=True,
        )
    if not slower:
        console.print(f"faster than {reference} at every length and batch size measured", soft_wrap=True)


def _row(result: BenchmarkResult, measured: Measurement) -> list[str]:
    speedup = "" if measured.label == result.reference else f"{result.speedup(measured):.2f}x"
    return [
        _clips(measured),
        f"{measured.median_ms:.1f}",
        f"{measured.spread:.0%}",
        f"{measured.real_time_factor:.4f}",
        speedup,
    ]


def _clips(measured: Measurement) -> str:
    return f"{measured.batch} x {measured.seconds:g} s"


def _print_blocks(console: Console, result: BenchmarkResult) -> None:
    with_blocks = [contender for contender in result.contenders if contender.blocks]
    table = Table(title=f"Blocks, one clip of {result.block_seconds:g} s", title_justify="left")
    for column in ("model", "block", "parameters", "MACs", "ms"):
        table.add_column(column, justify="left" if column in ("model", "block") else "right")
    for contender in with_blocks:
        table.add_section()
        for place, (block, costs) in enumerate((contender.blocks or {}).items()):
            table.add_row(
                "" if place else contender.label,
                block,
                short_number(int(costs["parameters"])),
                short_number(int(costs["macs"])),
                f"{costs['milliseconds']:.1f}",
            )
    if with_blocks:
        console.print(table)


def _numbers(name: str, text: str, kind: Callable[[str], Number]) -> list[Number]:
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise SlimvoxError(f"`{name}` must be numbers separated by commas, but is {text!r} instead") from None
