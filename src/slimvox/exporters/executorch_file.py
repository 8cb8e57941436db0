"""The format `executorch`: ExecuTorch programs (.pte) for phones, their products by XNNPACK."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slimvox.exporters.base import ExportFormat, Program
from slimvox.util.errors import SlimvoxError, reason_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from slimvox.exporters.reference import Reference

LONGEST_SECONDS = 30.0
"""Longest clip that a file takes: its memory is planned in advance."""
ABOUT = "slimvox_metadata"
"""Method of a program that returns its metadata, JSON as bytes."""


class ExecuTorch(ExportFormat):
    """One clip at a time, of any length up to `LONGEST_SECONDS`, float32."""

    name = "executorch"
    title = "ExecuTorch"
    ending = ".pte"
    extra = "executorch"
    packages_to_write = ("executorch",)
    packages_to_run = ("executorch", "torch")
    holds_heads = False
    holds_mask = False

    def write(
        self, reference: Reference, path: Path, *, metadata: Mapping[str, str], opset: int | None
    ) -> None:
        """Trace a model for one clip, and lower it to XNNPACK's and ExecuTorch's own operators."""
        import torch

        from slimvox.exporters.trace import without_stack_traces

        longest = longest_samples(reference)
        content = json.dumps(reference.described({**metadata, "longest_samples": str(longest)}))
        with _quiet(), without_stack_traces():
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
            from executorch.exir import ExecutorchBackendConfig, to_edge_transform_and_lower

            edge = to_edge_transform_and_lower(
                trace_one_clip(reference, longest),
                partitioner=[XnnpackPartitioner()],
                constant_methods={ABOUT: torch.frombuffer(bytearray(content.encode()), dtype=torch.uint8)},
            )
            # Views take the place of copies by default, and may be planned larger than what they view.
            lowered = edge.to_executorch(ExecutorchBackendConfig(remove_view_copy=False))
        path.write_bytes(lowered.buffer)

    def open(self, path: Path, *, threads: int | None = None) -> Program:
        """Load a program; the number of threads is that of the process."""
        return ExecuTorchProgram(path, threads)


class ExecuTorchProgram(Program):
    """A .pte file in ExecuTorch's runtime."""

    def __init__(self, path: Path, threads: int | None = None) -> None:
        with _quiet():
            from executorch.extension.pybindings import portable_lib
            from executorch.runtime import Runtime, Verification

        if threads is not None:
            portable_lib._unsafe_reset_threadpool(threads)
        try:
            self._program = Runtime.get().load_program(path, verification=Verification.InternalConsistency)
            (about,) = self._program.load_method(ABOUT).execute([])
            self._method = self._program.load_method("forward")
        except Exception as error:  # RuntimeError, or others by what is damaged
            raise SlimvoxError(f"ExecuTorch cannot read {path}: {reason_of(error)}") from error
        self.metadata: dict[str, str] = json.loads(bytes(about.tolist()))
        self._longest = int(self.metadata["longest_samples"])
        self.inputs = json.loads(self.metadata["inputs"])
        self.outputs = json.loads(self.metadata["outputs"])

    def __call__(self, *inputs: NDArray[Any]) -> list[NDArray[Any]]:
        """All outputs, in their order; the clips of a batch one after the other."""
        import numpy as np
        import torch

        if inputs[0].shape[1] > self._longest:
            raise SlimvoxError(
                f"an ExecuTorch file takes clips of up to {self._longest} samples, but one has {inputs[0].shape[1]}:"
                " cut it, or use another format"
            )
        # The runtime uses the memory of the outputs again in its next run.
        clips = [
            [each.numpy().copy() for each in self._method.execute([torch.from_numpy(clip[None])])]
            for clip in inputs[0]
        ]
        return [np.concatenate(each) for each in zip(*clips, strict=True)]


def longest_samples(reference: Reference) -> int:
    """Maximum length of a clip in samples."""
    from slimvox.structures.anatomy import SAMPLE_RATE_HZ

    longest = int(LONGEST_SECONDS * SAMPLE_RATE_HZ)
    return min(longest, reference.encoder.anatomy.most_samples or longest)


def trace_one_clip(reference: Reference, longest: int) -> Any:
    """The `ExportedProgram` of a model for one clip of at most `longest` samples.

    ExecuTorch plans memory for the largest value of each size in it. A size such as `a * b // a` would be planned as
    `a * b`, hundreds of gigabytes for 30 s, so that the parts of `ExportableModel` avoid those.
    """
    import torch

    from slimvox.exporters.crop import crops_as_slices
    from slimvox.exporters.exportable import ExportableModel

    shortest = reference.shortest_samples
    model = ExportableModel(
        reference.encoder, None, layers=reference.signature.layers, positions="convolution"
    ).eval()
    sample = torch.zeros(1, shortest + 39 * reference.encoder.anatomy.hop)
    length: Any = torch.export.Dim.DYNAMIC(min=shortest, max=longest)
    with crops_as_slices(), torch.no_grad():
        program: Any = torch.export.export(model, (sample,), dynamic_shapes=({1: length},))
    program._guards_code = []  # one frame is accepted, too
    return program


@contextmanager
def _quiet() -> Iterator[None]:
    """Context without the warnings of ExecuTorch's own code, which say nothing of the model."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
