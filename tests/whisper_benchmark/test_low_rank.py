"""Low-rank maps of benchmarks/whisper: lossless where activations lie in a subspace, and as cheap as they count."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import slimvox
import whisper_models
from slimvox.costs import macs
from whisper_models import SAMPLES

FOLDER = Path(__file__).parents[2] / "benchmarks" / "whisper"


def script(name: str) -> ModuleType:
    """A script of the benchmark, under a name of its own: other benchmarks have scripts of the same names."""
    spec = importlib.util.spec_from_file_location(f"whisper_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


low_rank = script("low_rank")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> slimvox.SpeechEncoder:
    return slimvox.load(whisper_models.directory(tmp_path_factory.mktemp("whisper") / "dense"))


@pytest.fixture(scope="module")
def waveforms() -> Tensor:
    return 0.1 * torch.randn(3, SAMPLES, generator=torch.Generator().manual_seed(0))


def states(encoder: slimvox.SpeechEncoder, waveforms: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = encoder(waveforms).last_hidden_state
    return found


def test_activations_in_a_subspace_lose_nothing(encoder: slimvox.SpeechEncoder, waveforms: Tensor) -> None:
    """Outputs of rank 5 around a mean that is not in their subspace are kept by five components, not by four."""
    flat = low_rank.copy.deepcopy(encoder)
    draw = torch.Generator().manual_seed(1)
    name = "layers.1.feed_forward.intermediate_dense"
    linear = flat.get_submodule(name)
    with torch.no_grad():
        basis = torch.randn(linear.out_features, 5, generator=draw)
        linear.weight.copy_(0.3 * basis @ torch.randn(5, linear.in_features, generator=draw))
        linear.bias.copy_(torch.randn(linear.out_features, generator=draw))
    components = low_rank.principal_components(flat, [waveforms])
    assert components[name].rank(1 - 1e-9) == 5
    expected = states(flat, waveforms)
    for rank, loss in ((5, 1e-5), (4, None)):
        got = states(low_rank.factorised(flat, {name: rank}, components), waveforms)
        difference = float((got - expected).abs().max())
        assert difference < loss if loss is not None else difference > 1e-3


def test_what_is_counted_is_what_is_computed(encoder: slimvox.SpeechEncoder, waveforms: Tensor) -> None:
    components = low_rank.principal_components(encoder, [waveforms])
    assert len(components) == 6 * len(encoder.layers)
    ranks = low_rank.ranks_for(encoder, components, keep=0.93, seconds=1.0)
    smaller = low_rank.factorised(encoder, ranks, components)
    counted = []
    for each in (encoder, smaller):
        with FlopCounterMode(display=False) as counter:
            states(each, waveforms[:1])
        counted.append(counter.get_total_flops() // 2)
    promised = low_rank.low_rank_macs(encoder, ranks, 1.0)
    assert counted[0] - counted[1] == macs(encoder.anatomy, 1.0) - promised
    assert 0.9 * macs(encoder.anatomy, 1.0) < promised <= 0.93 * macs(encoder.anatomy, 1.0)
    assert all(type(smaller.get_submodule(name)) is nn.Sequential for name in ranks)
    assert all(type(encoder.get_submodule(name)) is nn.Linear for name in ranks)
    with pytest.raises(ValueError, match="no ranks keep 1%"):
        low_rank.ranks_for(encoder, components, keep=0.01, seconds=1.0)


def test_components_are_those_of_the_outputs(encoder: slimvox.SpeechEncoder, waveforms: Tensor) -> None:
    name = "layers.0.attention.v_proj"
    outputs: list[Tensor] = []
    hook = encoder.get_submodule(name).register_forward_hook(lambda _m, _i, output: outputs.append(output))
    states(encoder, waveforms)
    hook.remove()
    rows = outputs[0].flatten(0, 1).double()
    found = low_rank.principal_components(encoder, [waveforms[:1], waveforms[1:]])[name]
    torch.testing.assert_close(found.mean, rows.mean(0), atol=1e-6, rtol=1e-5)
    variances = torch.linalg.svdvals(rows - rows.mean(0)).square()
    torch.testing.assert_close(found.explained, variances.cumsum(0) / variances.sum(), atol=1e-6, rtol=0)
    assert [found.rank(share) for share in (0.0, float(found.explained[2]) - 1e-9, 1.1)] == [1, 3, 32]
