"""All figures of docs/results-speed.md and of README's speed tables. Nothing else should run on the machine meanwhile.

    python benchmarks/speed/run.py --out docs/results-speed.md --readme README.md --pruned DIR --keep RESULTS
        [--parts NAME ...] [--threads 2] [--runs 7] [--most 1]

DIR is an encoder really pruned from the embedded teacher (`slimvox prune embedded ...`, or the demo's): it is measured
as it is, and in the part `encoders` its uneven sizes are measured at WavLM-Base+'s size too. The others have the right
shape and random weights. Parts that are not measured keep their sections of the file.

A part is measured in pieces of some minutes. Each piece is a JSON file in RESULTS that is not measured again, so that
the command can be stopped and repeated, also with `--most 1`, which measures one piece at most. A part's tables
are of the pieces that are there.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.append(str(Path(__file__).parents[1]))

import attention_layouts
import compiled
import limit
import long_audio
import prune_step
import shapes
import torch
from checkout import commit
from page import README_SECONDS, lengths_table, readme_table, runtimes_section, write_between, write_section

from slimvox.checkpoint import load
from slimvox.costs import Macs, macs, parameters
from slimvox.measure.benchmark import BenchmarkResult, benchmark
from slimvox.measure.benchmark.result import machine
from slimvox.structures.anatomy import EncoderAnatomy
from slimvox.util.quantities import short_number

RUNTIMES = (("torch", "torch-bf16"), ("onnx", "onnx-int8"), ("openvino", "openvino-bf16"))
"""Backends that are measured at once. Of random weights, an int8 OpenVINO file says nothing."""
PIECES = {
    "runtimes": RUNTIMES,
    "pruned": (*RUNTIMES[:-1], (*RUNTIMES[-1], "openvino-int8")),
    "short": (RUNTIMES[0], ("onnx-int8", "openvino-bf16")),
    "half-minute": (("torch", "torch-bf16", "onnx-int8", "openvino-bf16"),),
}
"""Backends of each piece, for the parts that are measured in pieces."""
PARTS = (*PIECES, "limit", "compiled", "long", "encoders", "attention", "step", "plain-step")
README_PARTS = ("runtimes", "pruned")
MARKS = {part: (f"<!-- speed of {part} -->", f"<!-- end of speed of {part} -->") for part in README_PARTS}
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
    parser.add_argument("--parts", nargs="+", default=README_PARTS, choices=PARTS)
    parser.add_argument("--keep", type=Path, help="folder for the results of pieces")
    parser.add_argument("--most", type=int, default=sys.maxsize, help="number of pieces to measure at most")
    arguments = parser.parse_args()
    if arguments.pruned is None and {"pruned", "attention"} & {*arguments.parts}:
        parser.error("the parts `pruned` and `attention` need --pruned DIR")
    torch.set_num_threads(arguments.threads)
    left = arguments.most
    with TemporaryDirectory() as folder:
        for part in arguments.parts:
            if part not in PIECES:
                print(f"measuring: {part}", file=sys.stderr, flush=True)
                text = section(part, arguments.pruned, Path(folder), arguments.threads, arguments.runs)
                write_section(arguments.out, text, _stamp(arguments.threads, [commit()]))
                continue
            pieces = pieces_of(
                part,
                arguments.pruned,
                Path(folder),
                arguments.keep or Path(folder),
                arguments.threads,
                arguments.runs,
            )
            for piece in pieces:
                if not piece.file.exists() and left:
                    print(f"measuring: {piece.file.stem}", file=sys.stderr, flush=True)
                    piece.measure()
                    left -= 1
            missing = [piece for piece in pieces if not piece.file.exists()]
            present = [piece for piece in pieces if piece.file.exists()]
            left_out = [backend for piece in missing for backend in piece.backends]
            if left_out:
                print(f"{part}: not measured yet: {', '.join(left_out)}", file=sys.stderr)
            if not present:
                continue
            results, commits = zip(*[piece.read() for piece in present], strict=True)
            text = runtimes_section(part, results)
            if left_out:
                text += f" Not measured: {', '.join(left_out)}."
            write_section(arguments.out, text, _stamp(arguments.threads, commits))
            if arguments.readme is not None and part in MARKS:
                names = {"paper": "`paper`, 28 % of the parameters", "fast": "20 % of the MACs, near `fast`"}
                if arguments.pruned is not None:
                    encoder = load(arguments.pruned)
                    share = macs(encoder.anatomy) / macs(encoder.dense_anatomy)
                    names[arguments.pruned.name] = f"pruned, {100 * share:.0f} % of the MACs"
                write_between(arguments.readme, *MARKS[part], readme_table(results, names))


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Backends of a part that are measured at once, and the file with their result."""

    backends: tuple[str, ...]
    file: Path
    run: Callable[[], BenchmarkResult]

    def measure(self) -> None:
        """Write the file."""
        content = {"commit": commit(), "result": self.run().to_dict()}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_text(json.dumps(content, indent=1) + "\n")

    def read(self) -> tuple[BenchmarkResult, str]:
        """The result and the commit that it was measured at."""
        content = json.loads(self.file.read_text())
        return BenchmarkResult.from_dict(content["result"]), content["commit"]


def pieces_of(
    part: str, pruned: Path | None, folder: Path, keep: Path, threads: int, runs: int
) -> list[Piece]:
    """The pieces of a part; models of the right shape are written to `folder`."""

    @cache
    def models() -> list[Path]:
        if part == "pruned":
            assert pruned is not None
            return [pruned]
        anatomies = even_shapes()
        names = ("fast",) if part == "short" else ("paper", "fast")
        return [_written(anatomies[name], folder / name) for name in names]

    seconds = {
        "runtimes": (README_SECONDS,),
        "pruned": (2.0, README_SECONDS),
        "short": (0.5, 1.0, 2.0),
        "half-minute": (30.0,),
    }[part]

    def piece(backends: tuple[str, ...]) -> Piece:
        def run() -> BenchmarkResult:
            return benchmark(
                models(),
                against="embedded" if part == "pruned" else None,
                seconds=seconds,
                backends=backends,
                threads=threads,
                runs=runs,
            )

        name = f"{part}-{'+'.join(backends)}-{threads}-threads-{runs}-runs.json"
        return Piece(backends=backends, file=keep / name, run=run)

    return [piece(backends) for backends in PIECES[part]]


def even_shapes() -> dict[str, EncoderAnatomy]:
    """The even shapes that stand for the recipes `paper` and, about four times as fast as dense, `fast`."""
    return {
        "paper": shapes.even(channels=512, heads=5),
        "fast": shapes.even(channels=192, heads=4, cost=Macs()),
    }


def _written(anatomy: EncoderAnatomy, directory: Path) -> Path:
    return directory if directory.exists() else shapes.write(anatomy, directory)


def section(part: str, pruned: Path | None, folder: Path, threads: int, runs: int) -> str:
    """A part that is measured at once, as Markdown."""
    if part == "step":
        table = prune_step.parts_table(max(2, runs // 2))
        return f"## A step of stage 1, {prune_step.BATCH} x {prune_step.SECONDS:g} s\n\n{table}"
    if part == "plain-step":
        return f"## A step of stage 1 against the plain way\n\n{prune_step.table(max(3, runs // 2))}"
    if part == "attention":
        assert pruned is not None
        return f"## Attention with heads of unequal width\n\n{attention_layouts.table(shapes.uneven(pruned), runs)}"
    if part == "limit":
        models = [_written(anatomy, folder / name) for name, anatomy in even_shapes().items()]
        result = benchmark(
            models, seconds=(README_SECONDS,), backends=RUNTIMES[0], threads=threads, runs=runs
        )
        return f"## Blocks against the machine's limit\n\n{limit.table(result)}"
    if part == "compiled":
        encoders = {"dense": shapes.base_plus(), "fast": even_shapes()["fast"]}
        return f"## `torch.compile`\n\n{compiled.table(encoders, runs)}"
    if part == "long":
        models = {"embedded": "embedded", "fast": str(_written(even_shapes()["fast"], folder / "fast"))}
        return f"## An hour of audio\n\n{long_audio.table(models, threads)}"
    wanted = {
        "dense": shapes.base_plus(),
        **even_shapes(),
        "fast-28-224": shapes.even(channels=224, heads=4),
        "fast-28-128": shapes.even(channels=128, heads=4),
    }
    if pruned is not None:
        wanted |= {"uneven": shapes.uneven(pruned), "uneven-8": shapes.uneven(pruned, round_to=8)}
    directories = {name: _written(anatomy, folder / name) for name, anatomy in wanted.items()}
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
    return f"## WavLM-Base+'s shape, float32 torch\n\n{described}\n\n{lengths_table(result)}"


def _stamp(threads: int, commits: Sequence[str]) -> str:
    about = machine(threads)
    at = " and ".join(f"`{each}`" for each in dict.fromkeys(commits))
    return (
        f"Measured on {about['processor']}, {about['cores']} cores, {threads} threads, torch {about['torch']}, Python"
        f" {platform.python_version()}, {date.today().isoformat()}, at commit {at}."
    )


if __name__ == "__main__":
    main()
