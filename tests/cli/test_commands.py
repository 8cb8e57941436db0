"""Commands have the options of the functions behind them, and the flags of version 0.1 still work."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import shlex
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import docstring_parser
import pytest

from slimvox.cli.command import ONLY_IN_PYTHON
from slimvox.cli.main import Command, parse

COMMANDS: dict[str, Any] = {
    next(extra.name for extra in each.__metadata__ if hasattr(extra, "name")): each.__origin__
    for each in typing.get_args(Command)
}
ONLY_ON_THE_COMMAND_LINE = {
    "prune": {"push_to_hub", "verbose"},
    "inspect": {"json", "token", "verbose"},
    "encode": {"verbose"},
    "compare": {"json", "states", "verbose"},
    "evaluate": {"json", "verbose"},
    "benchmark": {"json", "out", "plot", "verbose"},
    "latency": {"json", "verbose"},
    "export": {"verbose"},
    "report": set(),
    "figures": set(),
    "demo": set(),
}
"""Options that are not parameters of the command's function."""
FLAGS = {
    "prune": "m a b -v --revision R --out o --recipe fast --target-parameters 28% --target-macs 15G --target-speed 4x"
    " --runtime onnx --latency-table t --sizes 50%,28% --set a.b=1 c.d=2"
    " --held-out h i --device cpu --precision bf16 --max-steps 3 --seed 4"
    " --control thin --checkpoint-seconds 5 --push-to-hub me/x",
    "inspect": "m --verbose --revision R --json",
    "encode": "m a b -v --revision R --out o --format safetensors --layers 0,6 --dtype float16 --chunk-seconds 9"
    " --overlap-seconds 1 --device cpu --overwrite",
    "compare": "m a b -v --revision R --teacher t --seconds 0 --seed 4 --states --device cpu --json",
    "evaluate": "m -v --revision R --data d --suite official --tasks ks pr --manifest ks=a.tsv pr=b.tsv --seeds 3"
    " --set ks.steps=2 ks.batch=3 --out o --cache c --cache-gib 2 --device cpu --json",
    "benchmark": "m n -v --against d --seconds 1,2.5 --batch 1,8 --threads 4 --backends torch,onnx --runs 3 --json"
    " --out o",
    "latency": "m -v --out o --runtime onnx --seconds 2 --threads 3 --device auto --json",
    "export": "m -v --revision R --format torch-export --out o --int8 --max-error 0.1 --heads --layers last --mask"
    " --opset 18 --force",
    "report": "r s --out o --scores a b --benchmark c d",
    "figures": "r s --out o --scores a b --benchmark c d --quality distance",
    "demo": "--out o --max-steps 3 --seed 4",
}
"""Every argument of every command, with a value that is not the default."""

PASSED: dict[str, dict[str, Any]] = {
    "prune": {"model": "m", "audio": ("a", "b"), "overrides": ("a.b=1", "c.d=2"), "sizes": "50%,28%"},
    "evaluate": {"manifests": {"ks": (Path("a.tsv"),), "pr": (Path("b.tsv"),)}, "data": Path("d")},
    "benchmark": {"seconds": [1.0, 2.5], "batch": [1, 8], "backends": ["torch", "onnx"], "against": "d"},
}
"""Values that the functions get from these arguments."""


@pytest.mark.parametrize("name", FLAGS)
def test_the_flags_are_parsed(name: str) -> None:
    words = shlex.split(FLAGS[name])
    parsed = parse([name, *words])
    given = {word.removeprefix("--").replace("-", "_") for word in words if word.startswith("--")}
    for field in dataclasses.fields(parsed):
        if field.name in given:
            assert getattr(parsed, field.name) != field.default, field.name
            given.remove(field.name)
    assert not given


@pytest.mark.parametrize("name", ONLY_ON_THE_COMMAND_LINE)
def test_a_commands_options_are_the_parameters_of_its_function(name: str) -> None:
    command = COMMANDS[name]
    module, _, attribute = command.path.rpartition(".")
    function = getattr(importlib.import_module(module), attribute)
    parameters = inspect.signature(function).parameters
    texts = {each.arg_name: each.description for each in docstring_parser.parse(function.__doc__).params}
    assert set(texts) == set(parameters)
    assert set(command.arguments) == set(parameters) - ONLY_IN_PYTHON
    fields = {field.name: field for field in dataclasses.fields(command)}
    options = {argument.name or parameter for parameter, argument in command.arguments.items()}
    assert set(fields) == options | ONLY_ON_THE_COMMAND_LINE[name]
    hints = typing.get_type_hints(command, include_extras=True)
    for parameter, argument in command.arguments.items():
        option = fields[argument.name or parameter]
        default = parameters[parameter].default
        if default is inspect.Parameter.empty:
            assert option.default is dataclasses.MISSING
        else:
            value = argument.parse(option.default) if argument.parse else option.default
            value = tuple(value) if isinstance(default, tuple) else value
            assert value == default or (not value and default in (None, ())), parameter
        (text,) = (extra.help for extra in hints[option.name].__metadata__ if getattr(extra, "help", None))
        described = " ".join(texts[parameter].split()).partition(" In Python")[0]
        for each, its_argument in command.arguments.items():
            flag = f"--{(its_argument.name or each).replace('_', '-')}"
            described = described.replace(f"`{each}`", each.upper() if its_argument.positional else flag)
        assert text == (argument.text or described[0].upper() + described[1:])
        assert default is not True or text.startswith("Do not "), (
            "the flag says the opposite of the parameter"
        )


@pytest.mark.parametrize("name", ONLY_ON_THE_COMMAND_LINE)
def test_a_command_calls_its_function_with_its_options(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    command = parse([name, *shlex.split(FLAGS[name])])
    module, _, attribute = command.path.rpartition(".")
    parameters = inspect.signature(getattr(importlib.import_module(module), attribute)).parameters
    passed: dict[str, Any] = {}
    monkeypatch.setattr(importlib.import_module(module), attribute, passed.update)
    command.call()
    assert set(passed) == set(parameters) - ONLY_IN_PYTHON
    for parameter, argument in command.arguments.items():
        if f"--{(argument.name or parameter).replace('_', '-')} " in FLAGS[name] + " ":
            assert passed[parameter] != parameters[parameter].default, parameter
    assert PASSED.get(name, {}).items() <= passed.items()


def test_the_help_of_a_command_needs_no_torch() -> None:
    code = """
import sys
from slimvox.cli import main
for name in sys.argv[1:]:
    try: main([name, "--help"])
    except SystemExit: pass
sys.exit("torch" in sys.modules)
"""
    shown = subprocess.run(
        [sys.executable, "-c", code, *COMMANDS], capture_output=True, text=True, check=False
    )
    assert shown.returncode == 0 and shown.stdout.count("usage:") == len(COMMANDS) and not shown.stderr
