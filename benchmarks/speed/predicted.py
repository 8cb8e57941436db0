"""Predicted against measured speed-ups, for encoders of drawn sizes and really pruned ones.

    python benchmarks/speed/predicted.py --out predicted.json [--runtime openvino] [--drawn 20] [--pruned DIR ...]

The table of the runtime is measured first, or read if it was measured before, as by `slimvox prune --target-speed`.
Nothing else should run on the machine meanwhile. A speed-up is that over the dense encoder, which takes turns with
every few of the others, because the speed of a machine changes within seconds: the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import median

import numpy as np
import torch

from slimvox.checkpoint import load
from slimvox.costs import CostContext, cost_kind
from slimvox.encoder import SpeechEncoder
from slimvox.measure.benchmark.result import machine
from slimvox.measure.latency.beside_dense import groups_beside_dense, times_beside_dense
from slimvox.measure.latency.in_torch import SMALL, drawn_anatomy
from slimvox.measure.runtime import encoder_milliseconds

SEED = 1
"""Not the seed of the encoders that the table is measured on."""


def main() -> None:
    """Measure, print a table and write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument(
        "--model", default="embedded", help="dense model whose shape the sizes are drawn from"
    )
    parser.add_argument("--pruned", nargs="*", default=[], help="directories of encoders pruned from it")
    parser.add_argument("--runtime", default="torch", help="backend of `slimvox benchmark`")
    parser.add_argument("--drawn", type=int, default=20)
    parser.add_argument("--small", type=int, default=4, help="number of further ones that are small")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    dense = load(arguments.model)
    table = cost_kind("latency").prepare(
        CostContext(
            dense=dense.anatomy,
            seconds=arguments.seconds,
            device=torch.device("cpu"),
            on_progress=print,
            runtime=arguments.runtime,
        )
    )
    draw = np.random.default_rng(SEED)
    paths = [Path(path) for path in arguments.pruned]
    encoders: dict[str, SpeechEncoder] = {f"{path.parent.name}/{path.name}": load(path) for path in paths}
    for number in range(arguments.drawn):
        encoders[f"drawn {number}"] = SpeechEncoder(drawn_anatomy(dense.anatomy, draw)).eval()
    for number in range(arguments.small):
        encoders[f"small {number}"] = SpeechEncoder(drawn_anatomy(dense.anatomy, draw, SMALL)).eval()

    def clock(together: Mapping[str, SpeechEncoder]) -> dict[str, tuple[float, ...]]:
        times = encoder_milliseconds(
            together,
            backend=arguments.runtime,
            threads=arguments.threads,
            seconds=arguments.seconds,
            rounds=arguments.rounds,
        )
        print(f"timed: {', '.join(together)}", file=sys.stderr, flush=True)
        return times

    sessions = groups_beside_dense(list(encoders))
    milliseconds = times_beside_dense(
        dense, ({name: encoders[name] for name in names} for names in sessions), clock
    )
    rows = [
        {
            "encoder": name,
            "predicted": table.of_dense(dense.anatomy) / table.of(encoders[name].anatomy),
            "measured": milliseconds.dense / each,
            "milliseconds": each,
        }
        for name, each in milliseconds.others.items()
    ]
    errors = [row["predicted"] / row["measured"] - 1 for row in rows]
    print("| encoder | ms | predicted speed-up | measured | error |\n|---|---|---|---|---|")
    for row, error in zip(rows, errors, strict=True):
        print(
            f"| {row['encoder']} | {row['milliseconds']:.1f} | {row['predicted']:.2f}x | {row['measured']:.2f}x |"
            f" {error:+.0%} |"
        )
    within = sum(abs(error) <= 0.1 for error in errors)
    print(
        f"\nThe median error is {median(map(abs, errors)):.1%}; {within} of {len(errors)} predictions are within 10 %."
    )
    content = {"machine": machine(arguments.threads), "table": table.to_dict(), "encoders": rows}
    arguments.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
