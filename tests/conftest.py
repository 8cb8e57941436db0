"""Settings shared by all tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, settings

import slimvox
import slimvox.encoder.linear
from nightly import NIGHTLY, examples
from slimvox.util.devices import DEVICES, check_device
from slimvox.util.errors import SlimvoxError

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
def _products_by_onednn() -> Iterator[None]:
    """The same kernels on processors of every vendor."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["slimvox.encoder.linear"], "_mkl_is_faster", lambda: False)
        yield


_mkl_is_faster_here = sys.modules["slimvox.encoder.linear"]._mkl_is_faster


@pytest.fixture
def kernels_of_this_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that another process uses, for a comparison to the bit."""
    monkeypatch.setattr(sys.modules["slimvox.encoder.linear"], "_mkl_is_faster", _mkl_is_faster_here)


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    os.environ["SLIMVOX_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--device",
        choices=[name for name in DEVICES if name != "auto"],
        help="device for the tests that have one (by default, every device of this machine but the CPU)",
    )


def pytest_configure(config: pytest.Config) -> None:
    chosen = config.getoption("--device")
    try:
        check_device(chosen or "cpu")
    except SlimvoxError as error:
        raise pytest.UsageError(str(error)) from error


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests that take `device` run on that of `--device`, or on each GPU; where there is none they are skipped."""
    if "device" not in metafunc.fixturenames:
        return
    chosen = metafunc.config.getoption("--device")
    names = [chosen] if chosen else [name for name in DEVICES if name not in ("auto", "cpu")]
    metafunc.parametrize("device", [pytest.param(name, marks=_skipped_without(name)) for name in names])


def _skipped_without(device: str) -> pytest.MarkDecorator:
    try:
        check_device(device)
        missing = False
    except SlimvoxError:
        missing = True
    return pytest.mark.skipif(missing, reason=f"this machine has no {device}")
