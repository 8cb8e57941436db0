"""Interleaved timings of pruned encoders and of even shapes with the same MACs.

    python benchmarks/speed/widths.py DIR... [--backends torch torch-bf16] [--seconds 10] [--threads 2] [--rounds 15]

The even shape of an encoder has as many MACs in the front end, with every convolution thinner by the same factor; in
every layer the same number of whole heads, as near to the encoder's own dimensions as possible; and feed-forward blocks
of one width that fill the rest. Nothing else should run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from statistics import median

import torch

from slimvox.checkpoint import load
from slimvox.costs import Macs, macs
from slimvox.encoder import SpeechEncoder
from slimvox.measure.runtime import encoder_milliseconds
from slimvox.structures.anatomy import EncoderAnatomy
from slimvox.structures.parts import dense_layer
from slimvox.util.timing import relative_times

COST = Macs()


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "directories", nargs="+", metavar="DIR", help="encoders pruned from one dense encoder"
    )
    parser.add_argument("--backends", nargs="+", default=["torch", "torch-bf16"])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    # By path, because the last part is the seed in directories of `benchmarks/ablation/run.py`.
    pruned = {each: load(each) for each in arguments.directories}
    dense = next(iter(pruned.values())).dense_anatomy
    print("| encoder | backend | MACs | ms | speed-up | even shape, ms | time relative to the even shape |")
    print("|---" * 7 + "|")
    for backend in arguments.backends:
        for name, encoder in pruned.items():
            shape = even(dense, encoder.anatomy)
            times = encoder_milliseconds(
                {
                    "dense": SpeechEncoder(dense).eval(),
                    "pruned": encoder,
                    "even": SpeechEncoder(shape).eval(),
                },
                backend=backend,
                threads=arguments.threads,
                seconds=arguments.seconds,
                rounds=arguments.rounds,
            )
            speed_up = 1 / relative_times(times, "dense")["pruned"]
            own, level = median(times["pruned"]), median(times["even"])
            shares = [macs(each) / macs(dense) for each in (encoder.anatomy, shape)]
            print(
                f"| {name} | {backend} | {shares[0]:.1%}, even {shares[1]:.1%} | {own:.1f} | {speed_up:.2f}x |"
                f" {level:.1f} | {relative_times(times, 'even')['pruned']:.2f} |",
                flush=True,
            )


def even(dense: EncoderAnatomy, pruned: EncoderAnatomy) -> EncoderAnatomy:
    """The even shape of a pruned encoder's MACs."""

    def front_end(thousandths: int) -> EncoderAnatomy:
        convolutions = tuple(
            replace(each, channels=max(1, each.channels * thousandths // 1000)) for each in dense.convolutions
        )
        return replace(dense, convolutions=convolutions, layers=())

    bare = replace(pruned, layers=())
    front = front_end(_largest(lambda number: COST.of(front_end(number)) <= COST.of(bare), 1000))
    dimensions = sum(head.qk + head.vo for layer in pruned.layers for head in layer.heads)
    heads = max(1, round(dimensions / (2 * dense.head_width * len(pruned.layers))))

    def whole(width: int) -> EncoderAnatomy:
        layer = dense_layer(heads=heads, head_width=dense.head_width, intermediate=width)
        return replace(front, layers=(layer,) * len(pruned.layers))

    return whole(_largest(lambda width: COST.of(whole(width)) <= COST.of(pruned), 4 * dense.width))


def _largest(fits: Callable[[int], bool], most: int) -> int:
    """The largest number from 1 to `most` that fits, if all smaller ones do; 1 if none does."""
    low, high = 1, most + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
