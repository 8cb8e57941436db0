"""The modelling code that travels with a model directory.

`trust_remote_code=True` runs Python files that lie beside `config.json`, in one folder, with relative imports. They
are made from slimvox's own modules when a directory is written: `classes` and whatever of slimvox it imports, each
under a flat name, with nothing changed but the lines that import. Once they have travelled, this very module is among
them, and then they are copied as they are.
"""

from __future__ import annotations

import ast
import importlib.util
import re
from functools import cache
from pathlib import Path

PACKAGE = "slimvox"
ENTRY = "slimvox.hf.classes"
ENTRY_FILE = "modeling_slimvox"
"""Flat name of the entry: what `auto_map` points to."""
HEADER = (
    "# Part of slimvox, Apache-2.0 licence. Written beside the weights so that they load where slimvox is not"
    " installed.\n"
)


@cache
def travelling_files() -> dict[str, str]:
    """All files, by name.

    Raises:
        ValueError: if a module imports slimvox in a form that can't be flattened, or two would share a name.
    """
    if not __name__.startswith(f"{PACKAGE}."):
        here = Path(__file__).parent
        files = sorted([*here.glob(f"{PACKAGE}_*.py"), here / f"{ENTRY_FILE}.py"])
        return {file.name: file.read_text(encoding="utf-8") for file in files}
    sources: dict[str, str] = {}
    waiting = [ENTRY]
    while waiting:
        module = waiting.pop()
        name = f"{flat_name(module)}.py"
        if name not in sources:
            source, imported = flatten(_source_of(module), module)
            sources[name] = HEADER + source
            waiting.extend(imported)
    return sources


def flat_name(module: str) -> str:
    """The name of a module's file, without its ending: `slimvox.encoder.model` becomes `slimvox_encoder_model`."""
    return ENTRY_FILE if module == ENTRY else module.replace(".", "_")


def flatten(source: str, module: str) -> tuple[str, tuple[str, ...]]:
    """Make a module's imports of slimvox relative to one flat folder.

    Args:
        source: of the module.
        module: its dotted name, for messages.

    Returns:
        The new source, and the dotted names of the modules of slimvox that it imports.

    Raises:
        ValueError: for `import slimvox...` and `from slimvox import ...`; only `from slimvox.module import name` can
            be flattened.
    """
    lines = source.splitlines(keepends=True)
    imported: dict[str, None] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            wrong = [alias.name for alias in node.names if alias.name.partition(".")[0] == PACKAGE]
        elif isinstance(node, ast.ImportFrom):
            wrong = [str(node.module)] if node.level or node.module == PACKAGE else []
        else:
            continue
        if wrong:
            raise ValueError(
                f"{module}, line {node.lineno}: {', '.join(wrong)} must be imported as `from {PACKAGE}.module"
                " import name`, because this module travels with model directories"
            )
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith(f"{PACKAGE}."):
            name = str(node.module)
            imported[name] = None
            pattern = rf"from\s+{re.escape(name)}\s+import"
            line = lines[node.lineno - 1]
            lines[node.lineno - 1] = re.sub(pattern, f"from .{flat_name(name)} import", line, count=1)
    return "".join(lines), tuple(imported)


def _source_of(module: str) -> str:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ValueError(f"{module} travels with model directories, but there is no file of that module")
    return Path(spec.origin).read_text(encoding="utf-8")
