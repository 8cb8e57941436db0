"""Costs of an encoder: what a budget can limit, one file each; see `docs/extending/cost.md` for how to add one."""

from slimvox.costs.base import (
    BLOCK_KINDS,
    LAYER_BLOCKS,
    BlockCosts,
    Cost,
    CostContext,
    CostForm,
    CostKind,
    cost_kind,
    cost_names,
    register_cost,
    unregister_cost,
)
from slimvox.costs.counted import Macs, Parameters, macs, parameters

__all__ = [
    "BLOCK_KINDS",
    "LAYER_BLOCKS",
    "BlockCosts",
    "Cost",
    "CostContext",
    "CostForm",
    "CostKind",
    "Macs",
    "Parameters",
    "cost_kind",
    "cost_names",
    "macs",
    "parameters",
    "register_cost",
    "unregister_cost",
]
