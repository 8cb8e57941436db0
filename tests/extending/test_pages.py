"""The code on the pages about extending slimvox is the code that the tests run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PAGES = HERE.parents[1] / "docs" / "extending"
MODULES = {
    "structure": "../../examples/custom_structure_and_loss",
    "cost": "memory_traffic",
    "loss": "../../examples/custom_structure_and_loss",
    "pruner": "test_pruner",
    "family": "parrot",
    "format": "numpy_weights",
    "task": "gender_task",
    "source": "ctm_reader",
}


@pytest.mark.parametrize("page", MODULES)
def test_the_example_is_the_tested_one(page: str) -> None:
    blocks = re.findall(r"```python\n(.*?)\n```", (PAGES / f"{page}.md").read_text(), re.DOTALL)
    assert blocks[0] in (HERE / f"{MODULES[page]}.py").read_text()
