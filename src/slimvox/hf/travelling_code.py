"""The modelling code that travels with a model directory, for `trust_remote_code=True` where slimvox is not installed.

It is generated from slimvox's own modules when a directory is written: the Auto classes and the parts of slimvox that
they need, one module after the other, statement by statement, unchanged. All modules of a file share one namespace; two
that define the same name with different meanings are refused.
"""

from __future__ import annotations

import ast
import builtins
import importlib.util
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from slimvox.hf.directory_format import AUTO_MAP, CODE_FILES, WHISPER_AUTO_MAP

PACKAGE = "slimvox"
LAST_MODULES = dict(
    zip(CODE_FILES, ("slimvox.hf.configuration", "slimvox.hf.heads", "slimvox.hf.whisper"), strict=True)
)
"""Each file with its last module. Before it come the modules that it imports, except those of an earlier file."""
EMPTY_CLASSES = frozenset({"slimvox.encoder.pretrained"})
"""Modules that do nothing without slimvox: of their classes, which others derive from, only the docstring travels."""
HEADER = '''\
"""Part of slimvox, for use where slimvox is not installed (Apache-2.0 licence).

Generated from slimvox's own modules when this directory was written; a comment says where each module begins.
"""
'''
LINE_WIDTH = 110
PURE_DECORATORS = {"cache", "contextmanager", "dataclass", "runtime_checkable"}
"""Decorators without effects outside the definition, which can be left out if nothing refers to it."""


@dataclass(frozen=True)
class Import:
    """One name from outside slimvox."""

    module: str
    name: str | None
    """None for `import module`."""
    alias: str | None

    @property
    def bound(self) -> str:
        """The name in the importing module."""
        return self.alias or self.name or self.module.partition(".")[0]

    @property
    def meaning(self) -> str:
        """Description of what the name stands for."""
        whole = self.module if self.alias or self.name else self.bound
        return f"{whole}.{self.name}" if self.name else whole


@dataclass(frozen=True, kw_only=True)
class Statement:
    """A statement at the top of a module, with the comments before it."""

    text: str
    defines: frozenset[str]
    uses: frozenset[str]
    has_effects: bool
    """True if the statement matters even if nothing refers to what it defines."""


@dataclass(frozen=True, kw_only=True)
class Module:
    """A module of slimvox, parsed."""

    name: str
    summary: str
    """First line of its docstring."""
    requires: tuple[str, ...]
    """Modules of slimvox that it imports from, in order."""
    names: frozenset[str]
    """Names that the module imports from them."""
    imports: tuple[Import, ...]
    statements: tuple[Statement, ...]


@cache
def travelling_files() -> dict[str, str]:
    """The source of each of `CODE_FILES`, by name.

    Raises:
        ValueError: if modules cannot be joined, see `parse_module` and `join`.
    """
    modules: dict[str, Module] = {}
    files = {}
    for file, last in LAST_MODULES.items():
        own: dict[str, Module] = {}
        _collect(last, {*modules}, own)
        modules |= own
        files[file] = tuple(own.values())
    references = (*AUTO_MAP.values(), *WHISPER_AUTO_MAP.values())
    return join(files, {reference.rpartition(".")[2] for reference in references})


def join(files: Mapping[str, Iterable[Module]], required: Iterable[str]) -> dict[str, str]:
    """The source of files from their modules, with only those statements that the `required` names need.

    Args:
        files: by name, each with its modules in order of their imports; a file may need those before it.
        required: names that must be defined.

    Raises:
        ValueError: if a name has different meanings in two modules, hides a builtin, or is nowhere defined.
    """
    _check_names([module for modules in files.values() for module in modules])
    kept = _needed(
        [each for modules in files.values() for module in modules for each in module.statements], required
    )
    sources: dict[str, str] = {}
    homes: dict[str, str] = {}
    for file, modules in files.items():
        imports: list[Import] = []
        defined: set[str] = set()
        used: set[str] = set()
        sections = []
        for module in modules:
            statements = [each for each in module.statements if each in kept]
            if statements:
                text = "".join(each.text for each in statements).strip("\n")
                sections.append(f"# ---- {module.name} ----\n# {module.summary}\n\n\n{text}\n")
                imports += module.imports
                used.update(*(each.uses for each in statements))
                defined.update(*(each.defines for each in statements))
        imports = [each for each in imports if each.bound in used]
        imports += [Import(f".{homes[name]}", name, None) for name in used & {*homes}]
        homes |= dict.fromkeys(defined, file.removesuffix(".py"))
        head = f"{HEADER}\nfrom __future__ import annotations\n\n{_import_lines(imports)}"
        sources[file] = re.sub(r"\n{4,}", "\n\n\n", "\n\n".join([head, *sections]))
    return sources


def parse_module(source: str, name: str) -> Module:
    """Parse a module into its statements and imports.

    Args:
        source: source text of the module.
        name: its dotted name.

    Raises:
        ValueError: if it imports slimvox other than by `from slimvox.module import name` at its top.
    """
    lines = source.splitlines(keepends=True)
    tree = ast.parse(source)
    summary = (ast.get_docstring(tree) or "").partition("\n")[0].rstrip(".")
    requires: dict[str, None] = {}
    names: set[str] = set()
    imports: list[Import] = []
    statements: list[Statement] = []
    end = 0
    for node in tree.body:
        text = "".join(lines[end : node.end_lineno])
        end = node.end_lineno or end
        _refuse_other_imports(node, name)
        if name in EMPTY_CLASSES:
            if not isinstance(node, ast.ClassDef):
                continue
            node.body = node.body[:1]
            text = "".join(lines[node.lineno - 1 : node.body[0].end_lineno])
        if isinstance(node, ast.Import):
            imports += [Import(each.name, None, each.asname) for each in node.names]
        elif isinstance(node, ast.ImportFrom):
            if str(node.module).startswith(f"{PACKAGE}."):
                requires[str(node.module)] = None
                names.update(each.name for each in node.names)
            elif node.module != "__future__":
                imports += [Import(str(node.module), each.name, each.asname) for each in node.names]
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            if statements:  # the docstring of an assignment
                statements[-1] = replace(statements[-1], text=statements[-1].text + text)
        elif "__all__" not in _defined(node):
            statements.append(_statement(node, text))
    return Module(
        name=name,
        summary=summary,
        requires=tuple(requires),
        names=frozenset(names),
        imports=tuple(imports),
        statements=tuple(statements),
    )


def _statement(node: ast.stmt, text: str) -> Statement:
    used = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        effects = not {_decorator(each) for each in node.decorator_list} <= PURE_DECORATORS
    else:
        effects = not isinstance(node, ast.Assign | ast.AnnAssign) or any(
            isinstance(each, ast.Call) for each in ast.walk(node)
        )
    return Statement(text=text, defines=_defined(node), uses=frozenset(used), has_effects=effects)


def _decorator(node: ast.expr) -> str:
    called = node.func if isinstance(node, ast.Call) else node
    return called.id if isinstance(called, ast.Name) else ast.unparse(called)


def _defined(node: ast.stmt) -> frozenset[str]:
    """Names that a statement binds at the top of its module."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return frozenset({node.name})
    targets: list[ast.AST] = [node]
    if isinstance(node, ast.Assign):
        targets = [*node.targets]
    elif isinstance(node, ast.AnnAssign | ast.AugAssign):
        targets = [node.target]
    names = (each for target in targets for each in ast.walk(target) if isinstance(each, ast.Name))
    return frozenset(each.id for each in names if isinstance(each.ctx, ast.Store))


def _refuse_other_imports(statement: ast.stmt, module: str) -> None:
    for node in ast.walk(statement):
        if isinstance(node, ast.Import):
            wrong = [each.name for each in node.names if each.name.partition(".")[0] == PACKAGE]
        elif isinstance(node, ast.ImportFrom):
            ours = str(node.module).startswith(f"{PACKAGE}.")
            renamed = any(each.asname for each in node.names)
            hidden = node is not statement or renamed
            wrong = [str(node.module)] if node.level or node.module == PACKAGE or (ours and hidden) else []
        else:
            continue
        if wrong:
            raise ValueError(
                f"{module}, line {node.lineno}: {', '.join(wrong)} must be imported as `from {PACKAGE}.module"
                " import name` at the top of the module, because this module travels with model directories"
            )


def _collect(name: str, others: set[str], found: dict[str, Module]) -> None:
    """Add a module to `found`, after those that it imports and that are not among `others`."""
    if name in found or name in others:
        return
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ValueError(f"{name} travels with model directories, but there is no file of that module")
    module = parse_module(Path(spec.origin).read_text(encoding="utf-8"), name)
    for required in module.requires:
        _collect(required, others, found)
    found[name] = module


def _check_names(modules: Sequence[Module]) -> None:
    meanings: dict[str, str] = {}
    for module in modules:
        own = [(each.bound, each.meaning) for each in module.imports]
        own += [(name, f"{module.name}.{name}") for each in module.statements for name in each.defines]
        for name, meaning in own:
            if hasattr(builtins, name):
                raise ValueError(
                    f"`{meaning}` must not have the name of a builtin, because it travels with model directories"
                )
            if meanings.setdefault(name, meaning) != meaning:
                raise ValueError(
                    f"`{name}` must have one meaning in all modules that travel with model directories, but is both"
                    f" `{meanings[name]}` and `{meaning}`; rename one"
                )
    for module in modules:
        if missing := sorted(module.names - {*meanings}):
            raise ValueError(
                f"{module.name} imports {', '.join(missing)}, which must be defined by a statement at the top of a"
                " module that travels with model directories"
            )


def _needed(statements: Iterable[Statement], required: Iterable[str]) -> set[Statement]:
    """The statements that define `required` names or have effects, and all statements that these use."""
    statements = tuple(statements)
    homes: dict[str, list[Statement]] = {}
    for each in statements:
        for name in each.defines:
            homes.setdefault(name, []).append(each)
    waiting = [each for each in statements if each.has_effects]
    waiting += [each for name in required for each in homes.get(name, [])]
    needed: set[Statement] = set()
    while waiting:
        each = waiting.pop()
        if each not in needed:
            needed.add(each)
            waiting += [other for name in each.uses for other in homes.get(name, [])]
    return needed


def _import_lines(imports: Iterable[Import]) -> str:
    """Import statements: of the standard library, of other packages, of the other files of code."""
    groups: dict[int, list[Import]] = {0: [], 1: [], 2: []}
    for each in {*imports}:
        standard = each.module.partition(".")[0] in sys.stdlib_module_names
        groups[2 if each.module.startswith(".") else 0 if standard else 1].append(each)
    return "\n".join("".join(_sorted_lines(group)) for group in groups.values() if group)


def _sorted_lines(imports: Iterable[Import]) -> Iterator[str]:
    by_module: dict[str, list[str]] = {}
    plain = []
    for each in imports:
        renamed = f" as {each.alias}" if each.alias else ""
        if each.name is None:
            plain.append(f"import {each.module}{renamed}\n")
        else:
            by_module.setdefault(each.module, []).append(each.name + renamed)
    yield from sorted(plain)
    for module, names in sorted(by_module.items()):
        names.sort(key=lambda name: (not name.isupper(), not name[0].isupper(), name))
        line = f"from {module} import {', '.join(names)}\n"
        wrapped = f"from {module} import (\n" + "".join(f"    {name},\n" for name in names) + ")\n"
        yield line if len(line) <= LINE_WIDTH + 1 else wrapped
