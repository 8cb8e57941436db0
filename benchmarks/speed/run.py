"""All figures of docs/results-speed.md and of README's speed tables. Nothing else should run on the machine meanwhile.

    python benchmarks/speed/run.py --out docs/results-speed.md --readme README.md --pruned DIR [--threads 2] [--runs 7]

DIR is an encoder really pruned from the embedded teacher (`slimvox prune embedded ...`, or the demo's): it is measured
as it is, and in the part `encoders` its uneven sizes are measured at WavLM-Base+'s size too. The others have the right
shape and random weights. Parts that are not measured keep their sections of the file.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import attention_layouts
import prune_step
import shapes
import torch

from slimvox.costs import Macs, macs, parameters
from slimvox.measure.benchmark import BenchmarkResult, benchmark
from slimvox.measure.benchmark.result import machine
from slimvox.util.quantities import short_number

PARTS = ("runtimes", "pruned", "encoders", "attention", "step", "plain-step")
DEFAULT_PARTS = ("runtimes", "pruned")
RUNTIMES = (("torch", "torch-bf16"), ("onnx", "onnx-int8"), ("openvino", "openvino-bf16"))
"""Backends that are measured at once. Of random weights, an int8 OpenVINO file says nothing."""
TITLES = {
    "torch": "torch, float32",
    "torch-bf16": "torch, bf16",
    "onnx": "ONNX, float32",
    "onnx-int8": "ONNX, int8",
    "openvino": "OpenVINO, float32",
    "openvino-bf16": "OpenVINO, bf16",
    "openvino-int8": "OpenVINO, int8",
}
README_SECONDS = 10.0
MARKS = {part: (f"<!-- speed of {part} -->", f"<!-- end of speed of {part} -->") for part in DEFAULT_PARTS}
"""Comments in README around the tables that this script writes."""


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="Markdown file to write")
    parser.add_argument("--readme", type=Path, help="README whose tables are written too")
    parser.add_argument("--pruned", type=Path, help="directory of a really pruned encoder")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--parts", nargs="+", default=DEFAULT_PARTS, choices=PARTS)
    arguments = parser.parse_args()
    if "pruned" in arguments.parts and arguments.pruned is None:
        parser.error("the part `pruned` needs --pruned DIR")
    torch.set_num_threads(arguments.threads)
    with TemporaryDirectory() as folder:
        for part in arguments.parts:
            print(f"measuring: {part}", file=sys.stderr, flush=True)
            if part in DEFAULT_PARTS:
                results, names = measure(
                    part, arguments.pruned, Path(folder), arguments.threads, arguments.runs
                )
                text = runtimes_section(part, results)
                if arguments.readme is not None:
                    write_between(arguments.readme, *MARKS[part], readme_table(results, names))
            else:
                text = section(part, arguments.pruned, Path(folder), arguments.threads, arguments.runs)
            if text:
                write_section(arguments.out, text, _stamp(arguments.threads))


def measure(
    part: str, pruned: Path, folder: Path, threads: int, runs: int
) -> tuple[list[BenchmarkResult], dict[str, str]]:
    """Results of one part, one for each group of backends, and the rows of README's table by the encoder's name."""
    if part == "pruned":
        backends = [each for group in RUNTIMES for each in group]
        whole = benchmark(
            [pruned],
            against="embedded",
            seconds=(2.0, README_SECONDS),
            backends=(*backends, "openvino-int8"),
            threads=threads,
            runs=runs,
        )
        return [whole], {pruned.name: "pruned by 72 %"}
    anatomies = {
        "paper": shapes.even(channels=512, heads=5),
        "fast": shapes.even(channels=192, heads=4, cost=Macs()),
    }
    models = [shapes.write(anatomy, folder / name) for name, anatomy in anatomies.items()]
    # Not all at once: the dense encoder takes a GiB in each backend.
    results = [
        benchmark(models, seconds=(README_SECONDS,), backends=group, threads=threads, runs=runs)
        for group in RUNTIMES
    ]
    return results, {"paper": "`paper`, 28 % of the parameters", "fast": "`fast`, 20 % of the MACs"}


def readme_table(results: Sequence[BenchmarkResult], names: Mapping[str, str]) -> str:
    """Speed-ups over `transformers` by encoder and backend, and those by pruning alone."""
    totals: dict[str, dict[str, str]] = {"dense, slimvox": {}} | {name: {} for name in names.values()}
    alone: dict[str, dict[str, str]] = {f"by pruning alone: {name}": {} for name in names.values()}
    for result in results:
        for each in result.contenders:
            measured = result.at(each.label, 1, README_SECONDS, result.machine["threads"])
            gain = result.by_pruning(measured)
            if each.label == result.reference or gain is None:
                continue
            speedup = f"{result.speedup(measured):.1f}x"
            if each.label == each.dense:
                totals["dense, slimvox"][each.backend] = speedup
            else:
                row = names[each.label.rpartition(", ")[0]]
                totals[row][each.backend] = speedup
                alone[f"by pruning alone: {row}"][each.backend] = f"{gain:.1f}x"
    backends = list(totals["dense, slimvox"])
    lines = ["| encoder | " + " | ".join(TITLES[each] for each in backends) + " |"]
    lines += ["|---" * (len(backends) + 1) + "|", "| dense, `transformers` | 1.0x" + " |" * len(backends)]
    for name, row in (totals | alone).items():
        lines.append(f"| {name} | " + " | ".join(row[each] for each in backends) + " |")
    return "\n".join(lines)


def runtimes_section(part: str, results: Sequence[BenchmarkResult]) -> str:
    """Times of one part with the gains from the runtime and from pruning."""
    title = (
        "The embedded teacher, and pruned by 72 %" if part == "pruned" else "WavLM-Base+'s shape, by runtime"
    )
    lines = [
        f"## {title}",
        "",
        "| encoder | s | ms | speed-up | runtime | pruning | file | peak memory | start-up |",
        "|---" * 9 + "|",
    ]
    for result in results:
        for measured in result.measurements:
            each = result.contender(measured.label)
            ratios = (result.by_runtime(measured), result.by_pruning(measured))
            start = each.import_seconds + each.load_seconds + each.first_call_seconds
            cells = (
                each.label,
                f"{measured.seconds:g}",
                f"{measured.median_ms:.0f} ± {measured.spread:.0%}",
                f"**{result.speedup(measured):.2f}x**",
                *("" if ratio is None else f"{ratio:.2f}x" for ratio in ratios),
                f"{each.file_bytes / 1e6:.0f} MB",
                f"{each.peak_memory_bytes / 2**30:.2f} GiB",
                f"{start:.1f} s",
            )
            lines.append("| " + " | ".join(cells) + " |")
    runs = len(results[0].measurements[0].milliseconds)
    about = (
        f"Medians of {runs} interleaved runs, one clip at a time. speed-up: over the dense model in `transformers`,"
        " timed in turns; runtime: of the dense model in the same backend; pruning: over the dense model in the same"
        " backend; start-up: import, loading and first call of a fresh process."
    )
    return "\n".join(lines) + "\n\n" + about


def write_section(path: Path, section: str, stamp: str) -> None:
    """Replace the section of the same title in a file, or append it."""
    title = section.partition("\n")[0]
    head, *sections = ("\n" + path.read_text()).split("\n## ") if path.exists() else ["\n# Speed\n"]
    kept = [each for each in sections if f"## {each.partition(chr(10))[0]}" != title]
    place = next(
        (at for at, each in enumerate(sections) if f"## {each.partition(chr(10))[0]}" == title), len(kept)
    )
    kept.insert(place, f"{section.removeprefix('## ')}\n\n{stamp}\n")
    path.write_text("\n\n## ".join(each.strip("\n") for each in (head, *kept)) + "\n")


def write_between(path: Path, start: str, end: str, table: str) -> None:
    """Replace what is between two comments in a file."""
    before, _, rest = path.read_text().partition(start)
    _, found, after = rest.partition(end)
    if not found:
        raise SystemExit(f"{path} has no comments {start} and {end}")
    path.write_text(f"{before}{start}\n\n{table}\n\n{end}{after}")


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
    result = benchmark(
        list(directories.values()),
        against=None,
        seconds=(2.0, 10.0, 20.0),
        threads=threads,
        runs=runs,
    )
    return f"## WavLM-Base+'s shape, float32 torch\n\n{described}\n\n{_table(result)}"


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


def _stamp(threads: int) -> str:
    about = machine(threads)
    return (
        f"Measured on {about['processor']}, {threads} threads, torch {about['torch']}, Python"
        f" {platform.python_version()}, {date.today().isoformat()}."
    )


if __name__ == "__main__":
    main()
