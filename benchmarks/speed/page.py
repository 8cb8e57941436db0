"""Tables of the page and of README's section on speed, from results of `slimvox benchmark`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from slimvox.measure.benchmark import BenchmarkResult

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


def readme_table(results: Sequence[BenchmarkResult], names: Mapping[str, str]) -> str:
    """Speed-ups over `transformers` by encoder and backend, and those by pruning alone.

    Args:
        results: one per group of backends, of the same encoders.
        names: row titles by name of the encoder; those that were not measured are left out.
    """
    measured_names = {each.label.rpartition(", ")[0] for each in results[0].contenders}
    names = {name: title for name, title in names.items() if name in measured_names}
    totals: dict[str, dict[str, str]] = {"dense, slimvox": {}} | {name: {} for name in names.values()}
    alone: dict[str, dict[str, str]] = {f"gain from pruning alone: {name}": {} for name in names.values()}
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
                alone[f"gain from pruning alone: {row}"][each.backend] = f"{gain:.1f}x"
    backends = list(totals["dense, slimvox"])
    lines = ["| encoder | " + " | ".join(TITLES[each] for each in backends) + " |"]
    lines += ["|---" * (len(backends) + 1) + "|", "| dense, `transformers` | 1.0x" + " |" * len(backends)]
    for name, row in (totals | alone).items():
        lines.append(f"| {name} | " + " | ".join(row[each] for each in backends) + " |")
    return "\n".join(lines)


def runtimes_section(part: str, results: Sequence[BenchmarkResult]) -> str:
    """Times of one part with the gains from the runtime and from pruning."""
    title = {
        "pruned": "The embedded teacher, pruned",
        "runtimes": "WavLM-Base+'s shape, by runtime",
        "short": "Short clips",
        "half-minute": "Clips of 30 s",
    }[part]
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
        f"Medians of {runs} interleaved runs, one clip at a time. Columns: speed-up over the dense model in"
        " `transformers`; the part of it that comes from the runtime (the dense model in the same backend against"
        " `transformers`) and from pruning (against the dense model in the same backend); start-up, which is import,"
        " loading and the first call in a fresh process."
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


def lengths_table(result: BenchmarkResult) -> str:
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
