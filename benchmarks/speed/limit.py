"""Time of each block of an encoder beside the time of its MACs at the rate of a large matrix product."""

from __future__ import annotations

import time
from collections import defaultdict

import torch

from slimvox.measure.benchmark import BenchmarkResult
from slimvox.util.devices import torch_threads

PRECISIONS = {"torch": torch.float32, "torch-bf16": torch.bfloat16}
"""Backends in which the blocks of an encoder can be timed."""
SIZE = 2048
"""Rows and columns of the product that tells the machine's rate: large enough that only arithmetic limits it."""


def table(result: BenchmarkResult) -> str:
    """A table in Markdown with a row for each block of each encoder, in float32 and in bfloat16.

    Args:
        result: measurements of encoders in the backends `PRECISIONS`, with one number of threads.
    """
    # After the encoders: on a shared machine, the speed may have changed meanwhile.
    rates = {
        backend: macs_per_second(dtype, result.machine["threads"]) for backend, dtype in PRECISIONS.items()
    }
    rows: dict[tuple[str, str], dict[str, tuple[float, float]]] = defaultdict(dict)
    for contender in result.contenders:
        if contender.backend not in PRECISIONS or contender.blocks is None:
            continue
        name, blocks = contender.label.rpartition(", ")[0], contender.blocks
        whole = {key: sum(block[key] for block in blocks.values()) for key in ("macs", "milliseconds")}
        for block, costs in (*blocks.items(), ("all", whole)):
            rows[name, block][contender.backend] = costs["macs"], costs["milliseconds"]
    lines = [
        "| encoder | block | GMACs | float32: ms | limit | reached | bf16: ms | limit | reached |",
        "|---" * 9 + "|",
    ]
    for (name, block), backends in rows.items():
        cells = [name, block, f"{backends['torch'][0] / 1e9:.1f}"]
        for backend, rate in rates.items():
            macs, taken = backends[backend]
            limit = 1e3 * macs / rate
            cells += [f"{taken:.1f}", f"{limit:.1f}", f"{limit / taken:.0%}" if macs else ""]
        lines.append("| " + " | ".join(cells) + " |")
    float32, bfloat16 = (f"{rate / 1e9:,.0f} G" for rate in rates.values())
    return "\n".join(lines) + (
        f"\n\nOne clip of {result.block_seconds:g} s, medians of three runs. Limit: milliseconds of the MACs at the"
        f" rate of a product of two {SIZE} x {SIZE} matrices, {float32} a second in float32 and {bfloat16} in bfloat16."
        " Reached: limit divided by time. MACs are those of the plain algorithms; the positional convolution needs"
        " fewer, since it is computed by Fourier transforms. Rest: norms and sums."
    )


def macs_per_second(dtype: torch.dtype, threads: int) -> float:
    """MACs per second of a large product: the best of ten."""
    a, b = (torch.randn(SIZE, SIZE, dtype=dtype) for _ in range(2))
    seconds = []
    with torch.inference_mode(), torch_threads(threads):
        for _ in range(10):
            began = time.perf_counter()
            torch.mm(a, b)
            seconds.append(time.perf_counter() - began)
    return SIZE**3 / min(seconds)
