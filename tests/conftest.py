"""Settings shared by all tests."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import HealthCheck, settings

import slimvox
from nightly import NIGHTLY, examples

os.environ.setdefault("HF_HUB_OFFLINE", "1")

# The models in the tests are tiny: a second thread costs them more than it brings.
torch.set_num_threads(1)

# So that the order in which test modules import things does not matter.
slimvox.register_auto_classes()

# The same examples in every run, so that a failure is that of the change; other ones, and more, by night.
settings.register_profile(
    "slimvox",
    deadline=None,
    derandomize=not NIGHTLY,
    print_blob=NIGHTLY,
    max_examples=examples(100),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("slimvox")


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["SLIMVOX_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
