"""One way to measure cost of each kind; clips of one second."""

from __future__ import annotations

from slimvox.budget import CostMeasure
from slimvox.latency import LatencyTable

TABLE = LatencyTable(
    seconds=1.0,
    device="cpu",
    threads=1,
    front_end=(2e4, 3.0, 9.0, 0.05),
    projection=(1e4, 90.0),
    attention=(3e4, 9e4, 700.0),
    feed_forward=(2e4, 800.0),
    position=2e5,
    rest=1e5,
    error=0.05,
)
MEASURES = {
    "params": CostMeasure(),
    "macs": CostMeasure(kind="macs", seconds=1.0),
    "latency": CostMeasure(kind="latency", latency=TABLE),
}
