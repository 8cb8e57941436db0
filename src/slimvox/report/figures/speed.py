"""Bar chart of a benchmark: time of each contender, one panel for each length, batch size and number of threads."""

from __future__ import annotations

import io
from pathlib import Path

from slimvox.measure.benchmark import BenchmarkResult
from slimvox.report.figures.style import COLOURS, DOTS_PER_INCH, new_figure, style
from slimvox.util.errors import SlimvoxError
from slimvox.util.files import write_atomically
from slimvox.util.imports import require
from slimvox.util.output_paths import check_output_file, writing

ENDINGS = (".png", ".svg", ".pdf")


def check_plot(path: Path, name: str) -> None:
    """Raise SlimvoxError if matplotlib is missing or a plot cannot be written to `path`, the option `name`."""
    require(["matplotlib"], "drawing figures", extra="figures")
    if path.suffix not in ENDINGS:
        raise SlimvoxError(f"`{name}` must end in {', '.join(ENDINGS)}, but is {path.name} instead")
    check_output_file(path, name)


def write_plot(result: BenchmarkResult, path: Path) -> None:
    """Draw all measurements of a benchmark.

    Raises:
        SlimvoxError: as `check_plot`.
    """
    check_plot(path, "plot")
    points = list(dict.fromkeys((each.threads, each.batch, each.seconds) for each in result.measurements))
    labels = [each.label for each in result.contenders]
    backends = list(dict.fromkeys(each.backend for each in result.contenders))
    colours = [COLOURS[backends.index(each.backend) % len(COLOURS)] for each in result.contenders]
    with style():
        figure = new_figure(8, len(points) * (0.7 + 0.28 * len(labels)))
        for axes, (threads, batch, seconds) in zip(
            figure.subplots(len(points), 1, squeeze=False)[:, 0], points, strict=True
        ):
            found = [result.at(label, batch, seconds, threads) for label in labels]
            times = [each.median_ms for each in found]
            half_widths = [each.median_ms * each.spread for each in found]
            axes.barh(range(len(labels)), times, xerr=half_widths, color=colours, height=0.7)
            for place, each in enumerate(found):
                faster = "" if each.label == result.reference else f"  {result.speedup(each):.2f}x"
                axes.text(times[place] + half_widths[place], place, faster, va="center", fontsize=8)
            axes.set_yticks(range(len(labels)), labels)
            axes.invert_yaxis()
            axes.grid(axis="y", visible=False)
            axes.margins(x=0.12)
            axes.set_title(f"{batch} x {seconds:g} s, threads: {threads}", loc="left")
        axes.set_xlabel(f"milliseconds; factors are speed-ups over {result.reference}")
        content = io.BytesIO()
        metadata = {".png": {"Software": None}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
        figure.savefig(content, format=path.suffix[1:], dpi=DOTS_PER_INCH, metadata=metadata[path.suffix])
    with writing(f"`plot` {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content.getvalue())
