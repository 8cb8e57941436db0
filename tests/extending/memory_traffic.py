"""A cost that is not part of slimvox: bytes of weights that one forward pass reads. See docs/extending/cost.md."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from slimvox.costs import Cost, CostKind, Parameters
from slimvox.structures import Term
from slimvox.structures.anatomy import EncoderAnatomy


@dataclass(frozen=True)
class WeightBytes(Cost):
    """Bytes of weights, all of the same width."""

    kind = "weight-bytes"
    bytes_per_weight: int = 2

    def terms(self, anatomy: EncoderAnatomy) -> Iterator[Term]:
        """Terms of the parameters, multiplied by the bytes of each."""
        for term in Parameters().terms(anatomy):
            yield replace(term, coefficient=term.coefficient * self.bytes_per_weight)

    def describe(self, cost: float) -> str:
        """Text such as `53.1 MB of weights`."""
        return f"{cost / 1e6:.3g} MB of weights"


WEIGHT_BYTES = CostKind(
    name="weight-bytes",
    title="bytes of weights that a forward pass reads",
    prepare=lambda context: WeightBytes(),
    from_dict=lambda data: WeightBytes(),
)
