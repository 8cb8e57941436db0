"""`slimvox benchmark`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console
from rich.table import Table

from slimvox.cli.command import Argument, command
from slimvox.cli.options import VerboseOption
from slimvox.util.errors import SlimvoxError
from slimvox.util.output_paths import check_output_file
from slimvox.util.quantities import short_number

if TYPE_CHECKING:
    from slimvox.measure.benchmark import BenchmarkResult, Measurement


Number = TypeVar("Number", int, float)


def _numbers(name: str, metavar: str, kind: Callable[[str], Number]) -> Argument:
    """A list of numbers separated by commas."""

    def parse(text: str) -> list[Number]:
        try:
            return [kind(part) for part in text.split(",")]
        except ValueError:
            raise SlimvoxError(
                f"`{name}` must be numbers separated by commas, but is {text!r} instead"
            ) from None

    def show(numbers: Sequence[Number]) -> str:
        return ",".join(f"{each:g}" for each in numbers)

    return Argument(type=str, metavar=metavar, parse=parse, show=show)


@command(
    "slimvox.measure.benchmark.run.benchmark",
    models=Argument(type=tuple[str, ...], positional=True, metavar="MODEL..."),
    against=Argument(type=str | None, metavar="MODEL"),
    seconds=_numbers("seconds", "S,S,...", float),
    batch=_numbers("batch", "N,N,...", int),
    backends=Argument(
        type=str,
        metavar="NAME,...",
        parse=lambda text: [name.strip() for name in text.split(",")],
        show=",".join,
    ),
)
class BenchmarkCommand(VerboseOption):
    """Measure the speed of encoders, interleaved with the dense model in `transformers`."""

    json: bool = False
    """Print JSON with the time of every run."""
    out: Path | None = None
    """File for the results as JSON, in addition to the printed ones."""

    def run(self, console: Console) -> None:
        """Run the command."""
        if self.out is not None:
            check_output_file(self.out, "--out")
        with Console(stderr=True).status("loading") as status:
            result: BenchmarkResult = self.call(on_progress=status.update)
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
