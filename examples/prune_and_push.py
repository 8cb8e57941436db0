"""Prune an encoder, compare it with its teacher, and upload it to the Hugging Face hub.

    python examples/prune_and_push.py embedded speech/ --out runs/small --keep 28% --repository USER/small-encoder

Without `--repository` nothing is uploaded. Log in first, with `hf auth login`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import slimvox


def main() -> None:
    """Read the arguments, prune, compare and upload."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="teacher: embedded, a directory, or a model id on the hub")
    parser.add_argument("audio", nargs="+", help="folders, files, manifests or data sets of audio")
    parser.add_argument("--out", type=Path, required=True, help="directory for the pruned encoder")
    parser.add_argument("--keep", default="28%", help="share of the parameters to keep")
    parser.add_argument("--set", nargs="*", default=[], help="fields of the recipe, such as prune.steps=1000")
    parser.add_argument("--repository", help="repository on the hub, created if it does not exist")
    arguments = parser.parse_args()
    result = slimvox.prune(
        arguments.model,
        arguments.audio,
        arguments.out,
        target_parameters=arguments.keep,
        overrides=arguments.set,
    )
    print(f"{result.parameters:,} of {result.parameters_dense:,} parameters")
    if result.distance_after_finish is not None:
        print(f"relative error on held-out audio: {result.distance_after_finish.relative_error:.3f}")
    if arguments.repository:
        encoder = slimvox.SpeechEncoder.from_pretrained(arguments.out)
        print(encoder.push_to_hub(arguments.repository))


if __name__ == "__main__":
    main()
