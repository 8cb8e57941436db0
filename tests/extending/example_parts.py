"""The structure and the loss of examples/custom_structure_and_loss.py, which are not part of slimvox."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

EXAMPLE = Path(__file__).parents[2] / "examples" / "custom_structure_and_loss.py"


def _example() -> Any:
    specification = importlib.util.spec_from_file_location(EXAMPLE.stem, EXAMPLE)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


WholeLayers, LogEnergy = _example().WholeLayers, _example().LogEnergy
