"""The code on the pages about extending slimvox is the code that the tests run."""

from __future__ import annotations

import ast
import builtins
import re
from pathlib import Path
from typing import Any

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
def test_the_example_is_the_tested_one_and_has_its_imports(page: str) -> None:
    imports, example, *_ = re.findall(r"```python\n(.*?)\n```", (PAGES / f"{page}.md").read_text(), re.DOTALL)
    assert example in (HERE / f"{MODULES[page]}.py").read_text()
    namespace: dict[str, Any] = {}
    exec(imports, namespace)
    assert undefined_names(ast.parse(example)) <= namespace.keys()


def undefined_names(tree: ast.Module) -> set[str]:
    """Names that code reads and nowhere binds, builtins left out."""
    bound, read = set(dir(builtins)), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            bound.add(node.name)
        elif isinstance(node, ast.Name):
            (read if isinstance(node.ctx, ast.Load) else bound).add(node.id)
    return read - bound


def test_undefined_names_are_found() -> None:
    code = "def f(x):\n    try:\n        y = [z for z in x]\n    except E as e:\n        print(e, y, other)\n"
    assert undefined_names(ast.parse(code)) == {"E", "other"}
