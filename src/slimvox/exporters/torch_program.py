"""Writing and running `torch.export` programs (.pt2)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

METADATA_FILE = "slimvox.json"


def write_torch_program(program: Any, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a traced program, which needs torch and not slimvox.

    `torch.export.load(path).module()` runs it. It is also what AOTInductor compiles
    (`torch._inductor.aoti_compile_and_package(torch.export.load(path))`) and what ExecuTorch lowers
    (`executorch.exir.to_edge(torch.export.load(path))`).
    """
    torch.export.save(program, str(path), extra_files={METADATA_FILE: json.dumps(dict(metadata))})


class TorchProgram:
    """A .pt2 file, loaded again."""

    def __init__(self, path: Path) -> None:
        self._module = torch.export.load(str(path)).module()

    def __call__(self, *inputs: NDArray[Any]) -> list[NDArray[Any]]:
        """All outputs, in their order."""
        with torch.no_grad():
            outputs = self._module(*(torch.from_numpy(given) for given in inputs))
        return [output.numpy() for output in outputs]
