"""Parameters of slimvox's functions and docstrings of fields, read from the source.

Importing the functions imports torch, which takes seconds; `slimvox --help` takes a third of one.
"""

from __future__ import annotations

import ast
import builtins
import functools
import importlib
from collections.abc import Iterator
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any

import docstring_parser

_PACKAGE = "slimvox"
_ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """Parameter of a function."""

    name: str
    module: str
    """Module of the function, in which the names of the annotation are looked up."""
    annotation: ast.expr
    default: Any
    """Default value; `MISSING` if there is none."""
    text: str
    """Description in the docstring, in one line."""

    @property
    def hint(self) -> Any:
        """The evaluated annotation."""
        return _evaluate(self.module, self.annotation)


@functools.cache
def read_parameters(path: str) -> tuple[Parameter, ...]:
    """Parameters of a function, given by its full name such as `slimvox.pruning.pruner.prune`."""
    module, _, name = path.rpartition(".")
    function = _bindings(module)[name]
    assert isinstance(function, ast.FunctionDef)
    docstring = docstring_parser.parse(
        ast.get_docstring(function) or "", docstring_parser.DocstringStyle.GOOGLE
    )
    texts = {each.arg_name: _one_line(each.description or "") for each in docstring.params}
    positional = function.args.args
    missing = [None] * (len(positional) - len(function.args.defaults))
    defaults = [*missing, *function.args.defaults, *function.args.kw_defaults]
    return tuple(
        Parameter(
            name=argument.arg,
            module=module,
            annotation=argument.annotation or ast.Name("object", ast.Load()),
            default=MISSING if default is None else _default(module, default),
            text=texts.get(argument.arg, ""),
        )
        for argument, default in zip([*positional, *function.args.kwonlyargs], defaults, strict=True)
    )


def attribute_docstrings(cls: type) -> dict[str, str]:
    """Docstrings of the fields of a class and of its bases, each in one line."""
    bases = [base for base in cls.__bases__ if base.__module__.startswith(_PACKAGE)]
    texts = {name: text for base in bases for name, text in attribute_docstrings(base).items()}
    definition = _bindings(cls.__module__)[cls.__name__]
    assert isinstance(definition, ast.ClassDef)
    for statement, below in zip(definition.body, definition.body[1:], strict=False):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
        ):
            texts[statement.target.id] = _one_line(str(below.value.value))
    return texts


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _default(module: str, value: ast.expr) -> Any:
    return value if isinstance(value, ast.Lambda) else _evaluate(module, value)


def _evaluate(module: str, expression: ast.expr) -> Any:
    """Value of an annotation or a constant."""
    names = {node.id for node in ast.walk(expression) if isinstance(node, ast.Name)}
    code = compile(ast.fix_missing_locations(ast.Expression(expression)), module, "eval")
    return eval(code, {name: _value(module, name) for name in names})


@functools.cache
def _value(module: str, name: str) -> Any:
    """Value of a name in a module: constants are evaluated, only classes are imported."""
    statement = _bindings(module).get(name)
    if isinstance(statement, ast.ImportFrom) and str(statement.module).startswith(_PACKAGE):
        (original,) = (each.name for each in statement.names if name in (each.asname, each.name))
        return _value(str(statement.module), original)
    if isinstance(statement, ast.ImportFrom):
        return getattr(importlib.import_module(str(statement.module)), name)
    if isinstance(statement, (ast.Assign, ast.AnnAssign)) and statement.value is not None:
        return _evaluate(module, statement.value)
    if isinstance(statement, ast.ClassDef):
        return getattr(importlib.import_module(module), name)
    return getattr(builtins, name)


@functools.cache
def _bindings(module: str) -> dict[str, ast.stmt]:
    """Top-level statements of a module of slimvox, by the names that they bind."""
    path = _ROOT.joinpath(*module.split(".")[1:])
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    found = {}
    for statement in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.FunctionDef):
            del statement.body[1:]  # only the docstring is needed, and syntax trees are slow to keep
        found.update(dict.fromkeys(_bound_names(statement), statement))
    return found


def _bound_names(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
        yield statement.name
    elif isinstance(statement, ast.ImportFrom):
        yield from (each.asname or each.name for each in statement.names)
    elif isinstance(statement, (ast.Assign, ast.AnnAssign)):
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        yield from (each.id for each in targets if isinstance(each, ast.Name))
