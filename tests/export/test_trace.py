"""Tracing: options of torch, and what a traced program remembers."""

from __future__ import annotations

import importlib
from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from missing_packages import exports
from slimvox.exporters import trace


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


@pytest.fixture
def options() -> Any:
    found = importlib.import_module(trace.TRACING_OPTIONS)
    if not hasattr(found, "do_not_emit_stack_traces"):
        pytest.skip("this version of torch always records stack traces")
    return found


@pytest.mark.parametrize("before", [False, True])
def test_an_option_is_set_inside_and_as_before_outside(
    before: bool, options: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options, "do_not_emit_stack_traces", before)
    with suppress(ZeroDivisionError), trace.without_stack_traces():
        assert options.do_not_emit_stack_traces is True
        raise ZeroDivisionError
    assert options.do_not_emit_stack_traces is before


@pytest.mark.parametrize("module", ["torch.no_such_module", "torch.nn"])
def test_without_the_option_nothing_is_set(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "TRACING_OPTIONS", module)
    with trace.without_stack_traces():
        assert not hasattr(torch.nn, "do_not_emit_stack_traces")


@exports("torch-export")
@pytest.mark.parametrize("recorded", [False, True])
def test_a_traced_program_has_no_paths_of_this_machine(
    recorded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if recorded:  # as with a torch that lacks the option
        monkeypatch.setattr(trace, "TRACING_OPTIONS", "torch.no_such_module")
    program = trace.traced(Doubled(), (torch.zeros(4, 2),), ({0: torch.export.Dim.DYNAMIC},))
    assert program.graph.nodes and not any("stack_trace" in node.meta for node in program.graph.nodes)
