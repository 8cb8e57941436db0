"""Which modules may be bypassed."""

from __future__ import annotations

from torch import nn


def is_plain(module: nn.Module, expected: type[nn.Module]) -> bool:
    """Whether a module does what `expected` does with its weights, so that those may be used without calling it.

    It is not where an adapter (LoRA, say) has taken its place, where somebody hooked into it, or where its weights are
    fetched when it is called (offloading).
    """
    hooked = module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__
    return type(module) is expected and not hooked
