"""Families of encoders, one file each; see `docs/extending/family.md` for how to add one.

Every module of this package but `base` registers the family that it describes.
"""

import importlib
import pkgutil

from slimvox.families.base import (
    Family,
    config_fields,
    families,
    find_family,
    register_family,
    unregister_family,
)

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = [
    "Family",
    "config_fields",
    "families",
    "find_family",
    "register_family",
    "unregister_family",
]
