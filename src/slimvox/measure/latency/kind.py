"""Latency as a kind of cost: measured on the machine of the run."""

from __future__ import annotations

from slimvox.costs import CostContext, CostKind, register_cost
from slimvox.measure.latency.measure import measure_latency
from slimvox.measure.latency.table import LatencyTable


def _measured(context: CostContext) -> LatencyTable:
    context.say(f"measuring how long encoders of this shape take here, {context.seconds:g} s of audio ...")
    table = measure_latency(context.dense, seconds=context.seconds, device=context.device)
    context.say(
        f"dense: {table.of(context.dense) / 1e6:.3g} ms on {table.device}, {table.threads} threads; the table misses"
        f" encoders that it has not seen by {table.error:.0%} (median)"
    )
    return table


register_cost(
    CostKind(
        name="latency",
        title="time for a clip of `target.seconds`, predicted from a table that the run measures on its machine",
        prepare=_measured,
        from_dict=LatencyTable.from_dict,
        measured=True,
    )
)
