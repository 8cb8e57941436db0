"""`slimvox benchmark`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rich import box
from rich.console import Console
from rich.table import Table

from slimvox.cli.command import Argument, VerboseOption, command, showing
from slimvox.measure.benchmark.energy import UNAVAILABLE
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
    dense=Argument(
        text="Do not measure the dense model of each pruned one in the same backends. By default it is measured, to"
        " show how much of a speed-up comes from pruning and how much from the runtime."
    ),
    seconds=_numbers("seconds", "S,S,...", float),
    batch=_numbers("batch", "N,N,...", int),
    threads=_numbers("threads", "N,N,...", int),
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
    plot: Path | None = None
    """File for a bar chart of the times, .png, .svg or .pdf; needs the extra `figures`."""

    def run(self, console: Console) -> None:
        """Run the command."""
        if self.out is not None:
            check_output_file(self.out, "--out")
        if self.plot is not None:
            from slimvox.report.figures.speed import check_plot

            check_plot(self.plot, "--plot")
        with showing("loading") as show:
            result: BenchmarkResult = self.call(on_progress=show)
        text = json.dumps(result.to_dict(), indent=1)
        if self.out is not None:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            self.out.write_text(text + "\n")
        if self.plot is not None:
            from slimvox.report.figures.speed import write_plot

            write_plot(result, self.plot)
        if self.json:
            print(text)
        else:
            print_benchmark(console, result)


def print_benchmark(console: Console, result: BenchmarkResult) -> None:
    """Print tables of times, start-up and blocks, and name the measurements that are not faster than the reference."""
    machine, first = result.machine, result.measurements[0]
    device = "" if machine["device"] == "cpu" else f", {machine['device']}"
    console.print(
        f"{machine['processor']}{device}, torch {machine['torch']}; medians of {len(first.milliseconds)} interleaved"
        " runs on noise, ± half the interquartile range",
        soft_wrap=True,
    )
    points = dict.fromkeys((each.threads, each.batch, each.seconds) for each in result.measurements)
    for threads, batch, seconds in points:
        at_point = [result.at(each.label, batch, seconds, threads) for each in result.contenders]
        title = f"{_clips(at_point[0])}, {_threads(threads)}"
        console.print(_times(result, at_point, title))
    console.print(
        f"speed-up: over {result.reference}; runtime: speed-up of the dense model in the same backend; pruning:"
        " speed-up over the dense model in the same backend; RTF: real-time factor",
        soft_wrap=True,
    )
    _print_processes(console, result)
    if first.joules is None:
        console.print(f"energy is {UNAVAILABLE}", soft_wrap=True)
    _print_blocks(console, result)
    slower = result.slower()
    reference = result.reference
    for measured in slower:
        console.print(
            f"not faster: {measured.label} takes {1 / result.speedup(measured):.2f} times as long as"
            f" {reference} for {_clips(measured)}, threads: {measured.threads}",
            soft_wrap=True,
        )
    if not slower:
        console.print(f"faster than {reference} at every length and batch size measured", soft_wrap=True)


def _table(title: str, columns: Sequence[str], names: int = 1) -> Table:
    """A table without lines between its columns, whose first `names` columns are text and the others are numbers."""
    table = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0)
    )
    for place, column in enumerate(columns):
        is_name = place < names
        table.add_column(column, justify="left" if is_name else "right", overflow="fold", no_wrap=not is_name)
    return table


def _times(result: BenchmarkResult, measurements: Sequence[Measurement], title: str) -> Table:
    with_energy = measurements[0].joules is not None
    table = _table(title, ("model", "ms", "±", "RTF", *["J"] * with_energy, "speed-up", "runtime", "pruning"))
    for measured in measurements:
        is_reference = measured.label == result.reference
        is_dense = result.contender(measured.label).dense == measured.label
        table.add_row(
            measured.label,
            f"{measured.median_ms:.1f}",
            f"{measured.spread:.0%}",
            f"{measured.real_time_factor:.4f}",
            *([] if measured.joules is None else [f"{measured.joules:.3g}"]),
            "" if is_reference else _times_faster(result.speedup(measured)),
            "" if is_reference else _times_faster(result.by_runtime(measured)),
            "" if is_reference or is_dense else _times_faster(result.by_pruning(measured)),
        )
    return table


def _times_faster(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}x"


def _print_processes(console: Console, result: BenchmarkResult) -> None:
    """Print sizes, peak memory and start-up times, which are those of a fresh process."""
    columns = (
        "model",
        "parameters",
        "MACs\n10 s",
        "file\nMB",
        "memory\nMiB",
        "import\ns",
        "load\ns",
        "1st call\ns",
    )
    table = _table(f"Fresh process, {_threads(result.machine['threads'])}", columns)
    for each in result.contenders:
        peak = f"{each.peak_memory_bytes / 2**20:.0f}" if each.peak_memory_bytes else "?"
        starts = (each.import_seconds, each.load_seconds, each.first_call_seconds)
        table.add_row(
            each.label,
            short_number(each.parameters),
            short_number(each.macs_10s),
            f"{each.file_bytes / 1e6:.1f}",
            peak,
            *(f"{seconds:.2f}" for seconds in starts),
        )
    console.print(table)
    console.print(
        "memory: peak over all lengths and batch sizes, libraries included; import: of the runtime; 1st call: one"
        f" clip of {result.block_seconds:g} s",
        soft_wrap=True,
    )


def _threads(number: int) -> str:
    return f"{number} {'thread' if number == 1 else 'threads'}"


def _clips(measured: Measurement) -> str:
    return f"{measured.batch} x {measured.seconds:g} s"


def _print_blocks(console: Console, result: BenchmarkResult) -> None:
    with_blocks = [contender for contender in result.contenders if contender.blocks]
    table = _table(
        f"Blocks, one clip of {result.block_seconds:g} s",
        ("model", "block", "parameters", "MACs", "ms"),
        names=2,
    )
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
