"""The precomputed form of a cost against the sum of its terms, one by one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from drawn import anatomies
from measures import COSTS, sparsity_of
from nightly import examples
from slimvox.costs import Cost
from slimvox.pruning.gates import Gates
from slimvox.structures import Address, Block, Term, container, structure_names
from slimvox.structures.anatomy import EncoderAnatomy
from slimvox.structures.units import units
from small_encoders import wavlm


class ThreeAtATime(Cost):
    """A cost from outside the package, with longer products than any of the package's own."""

    kind = "three"

    def terms(self, anatomy: EncoderAnatomy) -> Iterator[Term]:
        """A product of three counts, and one of two counts that comes twice."""
        for layer in range(len(anatomy.layers)):
            addresses = [Address(name, layer) for name in ("qk", "vo", "intermediate")]
            yield Term(block=Block("attention", layer), coefficient=0.5, factors=tuple(addresses))
            for _ in range(2):
                yield Term(block=Block("attention", layer), coefficient=2, factors=tuple(addresses[:2]))
        yield Term(block=Block("projection"), coefficient=3.0)

    def describe(self, cost: float) -> str:
        """The number."""
        return f"{cost:g}"


ALL: dict[str, Cost] = {**COSTS, "three": ThreeAtATime()}


def direct(cost: Cost, anatomy: EncoderAnatomy, counts: dict[Address, float], *, expected: bool) -> float:
    """The sum of the terms in Python."""
    total = 0.0
    for term in cost.terms(anatomy):
        found = [counts.get(address, 0.0) for address in term.factors]
        value = math.prod(found)
        if term.once and not expected:
            value = float(any(found))
        elif term.once and len(found) == 1 and term.factors[0] in counts:
            outer = container(term.factors[0].structure)
            value = found[0] if outer is None else counts[Address(outer, term.factors[0].index)]
        elif term.once:
            value = float(any(address in counts for address in term.factors))
        total += term.coefficient * value
    return total


@settings(max_examples=examples(40))
@given(anatomy=anatomies(), seed=st.integers(0, 10_000))
@example(anatomy=wavlm(), seed=0)
def test_forms_are_the_sums_of_their_terms(anatomy: EncoderAnatomy, seed: int) -> None:
    draw, addresses = np.random.default_rng(seed), units(anatomy).addresses
    sizes = np.array([units(anatomy).sizes[address] for address in addresses])
    whole, some = draw.integers(0, sizes + 1), draw.uniform(0, sizes)
    for cost in ALL.values():
        form = cost.form(anatomy)
        at_whole = dict(zip(addresses, whole.tolist(), strict=True))
        assert form.exact(whole) == pytest.approx(direct(cost, anatomy, at_whole, expected=False), rel=1e-12)
        counts = torch.tensor(some, dtype=torch.float32, requires_grad=True)
        value, at = form.expected(counts), dict(zip(addresses, counts.tolist(), strict=True))
        wanted = direct(cost, anatomy, at, expected=True)
        assert float(value.detach()) == pytest.approx(wanted, rel=2e-6)
        (slope,) = torch.autograd.grad(value, counts)
        # Multilinear: the slope is the difference that one more unit makes.
        place = int(draw.integers(len(addresses)))
        more = direct(cost, anatomy, {**at, addresses[place]: at[addresses[place]] + 1}, expected=True)
        assert float(slope[place]) == pytest.approx(more - wanted, rel=1e-4, abs=1e-9 * wanted)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", COSTS)
def test_autocast_does_not_round_the_expected_sparsity(kind: str, dtype: torch.dtype) -> None:
    """A cost of millions is infinite in float16, and bfloat16 knows its first three digits at best."""
    gates = Gates(wavlm(), structure_names())
    expected_sparsity = sparsity_of(gates, kind)
    expected = expected_sparsity()
    (slope,) = torch.autograd.grad(expected, gates.log_alpha)
    with torch.autocast("cpu", dtype):
        sparsity = expected_sparsity()
    assert torch.equal(sparsity, expected) and 0 < float(sparsity.detach()) < 1
    (same_slope,) = torch.autograd.grad(sparsity, gates.log_alpha)
    assert torch.equal(slope, same_slope)


class Operators(TorchDispatchMode):
    """Counts the operators that run."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[str(func)] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", COSTS)
@pytest.mark.parametrize("layers", [1, 6])
def test_the_expected_sparsity_takes_a_handful_of_operators_and_no_value_to_the_host(
    kind: str, layers: int
) -> None:
    anatomy = wavlm()
    anatomy = replace(anatomy, layers=anatomy.layers[:1] * layers)
    gates = Gates(anatomy, structure_names())
    expected_sparsity = sparsity_of(gates, kind)
    with Operators() as forward:
        sparsity = expected_sparsity()
    with Operators() as backward:
        torch.autograd.grad(sparsity, gates.log_alpha)
    for operators in (forward.counts, backward.counts):
        assert operators.total() <= 32
        assert not any("_local_scalar_dense" in name or "nonzero" in name for name in operators)
