"""All figures of docs/results-speed.md, written by one command. Nothing else should run on the machine meanwhile.

    python benchmarks/speed/run.py --out docs/results-speed.md [--pruned DIR] [--threads 2] [--runs 7]

DIR is an encoder really pruned from a 12-layer teacher (`slimvox prune embedded ...`, or the demo's): it is measured as
it is, and its uneven sizes are measured at WavLM-Base+'s size too. The others have random weights of the right shape.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import attention_layouts
import prune_step
import shapes
import torch

from slimvox.costs import Macs, macs, parameters
from slimvox.measure.benchmark import BenchmarkResult, benchmark
from slimvox.util.quantities import short_number

PARTS = ("encoders", "int8", "pruned", "attention", "step", "plain-step")


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="Markdown file to write")
    parser.add_argument("--pruned", type=Path, help="directory of a really pruned encoder")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    sections: list[str] = []
    with TemporaryDirectory() as folder:
        for part in arguments.parts:
            print(f"measuring: {part}", file=sys.stderr, flush=True)
            sections.append(section(part, arguments.pruned, Path(folder), arguments.threads, arguments.runs))
            arguments.out.write_text("\n\n".join([_head(arguments), *filter(None, sections)]) + "\n")


def section(part: str, pruned: Path | None, folder: Path, threads: int, runs: int) -> str:
    """One part as Markdown; empty where it needs a pruned encoder and there is none."""
    if part == "step":
        table = prune_step.parts_table(max(2, runs // 2))
        return f"## A step of stage 1, {prune_step.BATCH} x {prune_step.SECONDS:g} s\n\n{table}"
    if part == "plain-step":
        return f"## A step of stage 1 against the plain way\n\n{prune_step.table(max(3, runs // 2))}"
    if part == "attention":
        if pruned is None:
            return ""
        return f"## Attention with heads of unequal width\n\n{attention_layouts.table(shapes.uneven(pruned), runs)}"
    if part == "pruned":
        if pruned is None:
            return ""
        result = benchmark(
            ["embedded", pruned],
            against="embedded",
            seconds=(2.0, 10.0, 30.0),
            backends=("torch", "torch-bf16", "onnx", "onnx-int8"),
            threads=threads,
            runs=runs,
        )
        return f"## The embedded teacher, and pruned by 72 %\n\n{_table(result)}"
    wanted = {
        "dense": shapes.base_plus(),
        "paper": shapes.even(channels=512, heads=5),
        "fast": shapes.even(channels=192, heads=4, cost=Macs()),
        "fast-28-224": shapes.even(channels=224, heads=4),
        "fast-28-128": shapes.even(channels=128, heads=4),
    }
    if pruned is not None:
        wanted |= {"uneven": shapes.uneven(pruned), "uneven-8": shapes.uneven(pruned, round_to=8)}
    directories = {
        name: folder / name if (folder / name).exists() else shapes.write(anatomy, folder / name)
        for name, anatomy in wanted.items()
    }
    described = "\n".join(
        f"- `{name}`: {short_number(parameters(anatomy))} parameters, {short_number(macs(anatomy))} MACs for 10 s"
        for name, anatomy in wanted.items()
    )
    if part == "encoders":
        result = benchmark(
            list(directories.values()),
            against=None,
            seconds=(2.0, 10.0, 20.0),
            threads=threads,
            runs=runs,
        )
        return f"## WavLM-Base+'s shape, float32 torch\n\n{described}\n\n{_table(result)}"
    small = [path for name, path in directories.items() if name not in ("dense", "uneven")]
    result = benchmark(
        small,
        against=None,
        seconds=(10.0, 30.0),
        backends=("onnx", "onnx-int8"),
        threads=threads,
        runs=max(3, runs // 2),
    )
    return f"## WavLM-Base+'s shape, exported\n\n{_table(result)}"


def _table(result: BenchmarkResult) -> str:
    """Milliseconds and speed-ups by length."""
    seconds = sorted({measured.seconds for measured in result.measurements})
    lines = [
        "| encoder | " + " | ".join(f"{length:g} s" for length in seconds) + " | peak memory |",
        "|---|" + "---|" * (len(seconds) + 1),
    ]
    for contender in result.contenders:
        cells: list[str] = []
        for length in seconds:
            measured = result.at(contender.label, 1, length, result.machine["threads"])
            faster = "" if contender.label == result.reference else f", **{result.speedup(measured):.2f}x**"
            cells.append(f"{measured.median_ms:.0f} ms ± {measured.spread:.0%}{faster}")
        memory = f"{contender.peak_memory_bytes / 2**30:.2f} GiB"
        lines.append(f"| {contender.label} | " + " | ".join([*cells, memory]) + " |")
    runs: Sequence[float] = result.measurements[0].milliseconds
    return "\n".join(lines) + f"\n\nMedians of {len(runs)} interleaved runs, one clip at a time."


def _head(arguments: argparse.Namespace) -> str:
    from slimvox.measure.benchmark.result import machine

    told = machine(arguments.threads)
    return (
        "# Speed\n\nWritten by `python benchmarks/speed/run.py`; see there for the arguments. One run of the script, on"
        f" {told['processor']}, {told['threads']} threads, torch {told['torch']}, Python {platform.python_version()}.\n"
        "The shapes have random weights: `paper` keeps 28 % of the parameters and the whole front end, `fast` 20 % of\n"
        "the MACs, as the recipes do; `fast-28-N` keep 28 % of the parameters and N channels of the front end;\n"
        "`uneven` has the widths of an encoder really pruned, `uneven-8` the same in multiples of 8. Speed-ups are\n"
        "ratios of medians to the first row."
    )


if __name__ == "__main__":
    main()
