"""Error of int8 files on speech unlike that by which their scales were determined.

    python benchmarks/speed/int8_error.py ENCODER AUDIO... [--formats openvino onnx] [--calibration AUDIO...]

ENCODER is exported as by `slimvox export --int8`. Then the error of its hidden states is measured on the embedded
speech and on clips of each AUDIO (such as one folder for each corpus): mean and worst over states, of all clips
together.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

from slimvox.checkpoint import load
from slimvox.exporters import export, export_format
from slimvox.exporters.accuracy import relative_errors
from slimvox.exporters.calibration import embedded_test_clips, spread
from slimvox.exporters.reference import Reference
from slimvox.exporters.signature import Signature


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("encoder")
    parser.add_argument("audio", nargs="+")
    parser.add_argument("--formats", nargs="+", default=["openvino", "onnx"])
    parser.add_argument("--calibration", nargs="*", default=[])
    parser.add_argument("--clips", type=int, default=12, help="number of clips of each AUDIO")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    encoder = load(given.encoder).eval()
    reference = Reference(encoder=encoder, head=None, signature=Signature(layers="all", mask=False))
    corpora = {"embedded": embedded_test_clips(reference)}
    corpora |= {audio: spread([audio], given.clips, reference) for audio in given.audio}
    print("| format | audio | clips | mean, % | worst state, % |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in given.formats:
            chosen = export_format(name)
            calibration = given.calibration if chosen.calibrates_int8 else []
            path = Path(folder) / f"encoder{chosen.ending}"
            # Whatever its error is, it is to be measured.
            export(given.encoder, path, format=name, int8=True, calibration=calibration, force=True)
            program = chosen.open(path, threads=given.threads)
            for audio, clips in corpora.items():
                errors = [*relative_errors(program, reference, clips).values()]
                print(
                    f"| {name} | {audio} | {len(clips)} | {100 * np.mean(errors):.2f} | {100 * max(errors):.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
