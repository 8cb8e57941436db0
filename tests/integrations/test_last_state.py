"""The last hidden state of pre-norm (large) models: one answer for downstream heads, whoever asks."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import models
import slimvox
from slimvox.evaluation.upstreams import EncoderUpstream, load_upstream
from slimvox.integrations.s3prl import UpstreamExpert


def states_as_s3prl_hooks_them(model: nn.Module, waveforms: Tensor) -> list[Tensor]:
    """States that s3prl's own upstreams collect: the input of each layer, and the output of the whole Transformer."""
    found: list[Tensor] = []
    handles = [
        layer.register_forward_pre_hook(
            lambda _, args, kwargs: found.append(args[0] if args else kwargs["hidden_states"]),
            with_kwargs=True,
        )
        for layer in model.encoder.layers
    ]
    handles.append(
        model.encoder.register_forward_hook(lambda _, __, output: found.append(output.last_hidden_state))
    )
    with torch.no_grad():
        model(waveforms)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("layout", models.LAYOUTS)
@pytest.mark.parametrize("family", models.FAMILIES)
def test_heads_read_what_they_read_in_s3prl(family: str, layout: str, tmp_path: Path) -> None:
    reference = models.model(family, layout)
    reference.save_pretrained(tmp_path)
    waveforms = torch.randn(1, 3000)
    expected = states_as_s3prl_hooks_them(reference, waveforms)
    upstream = load_upstream(tmp_path)(waveforms)
    with torch.no_grad():
        expert = UpstreamExpert(tmp_path)([waveforms[0]])
        output = slimvox.load(tmp_path)(waveforms)
    assert len(expected) == upstream.shape[2] == len(expert["hidden_states"]) == 4
    for index, state in enumerate(expected):
        torch.testing.assert_close(upstream[:, :, index], state, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(expert["hidden_states"][index], state, atol=1e-4, rtol=1e-4)
    assert expert["last_hidden_state"] is expert["hidden_states"][-1]
    assert output.downstream_states[-1] is output.last_hidden_state
    raw_is_last = torch.equal(output.hidden_states[-1], output.last_hidden_state)
    assert raw_is_last is not slimvox.load(tmp_path).anatomy.pre_norm


def test_features_of_earlier_versions_are_not_mixed_with_these(tmp_path: Path) -> None:
    """The fingerprint decides whether features in the cache are taken; those of base models are the same as before."""
    from slimvox.evaluation.upstreams import weights_hash

    for layout in models.LAYOUTS:
        encoder = slimvox.load(models.directory(tmp_path / layout, "wavlm", layout))
        same = EncoderUpstream(encoder, "name").fingerprint == weights_hash(encoder)
        assert same is (layout == "base")


class StubSession:
    """A session of onnxruntime whose outputs are known: state i holds i, the last of all holds 9."""

    names: tuple[str, ...] = ()

    def __init__(self, *args: Any, **options: Any) -> None:
        pass

    def get_modelmeta(self) -> Any:
        about = {
            "slimvox_version": "0",
            "sample_rate_hz": "16000",
            "downsample_rate": "320",
            "width": "2",
            "shortest_samples": "400",
            "parameters": "5",
        }
        return SimpleNamespace(custom_metadata_map=about)

    def get_inputs(self) -> list[Any]:
        return [SimpleNamespace(name="waveforms")]

    def get_outputs(self) -> list[Any]:
        return [SimpleNamespace(name=name) for name in self.names]

    def run(self, names: list[str], inputs: dict[str, Any]) -> list[Any]:
        values = [9 if name == "last_hidden_state" else int(name[-2:]) for name in names]
        return [np.full((1, 3, 2), value, np.float32) for value in values]


@pytest.mark.parametrize(
    ("names", "values"),
    [
        (("hidden_state_00", "hidden_state_01", "hidden_state_02", "last_hidden_state"), [0, 1, 9]),
        (("hidden_state_00", "hidden_state_01", "hidden_state_02"), [0, 1, 2]),
        (("last_hidden_state",), [9]),
    ],
)
def test_an_exported_file_gives_the_same_states(
    names: tuple[str, ...], values: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    monkeypatch.setattr(onnxruntime, "InferenceSession", StubSession)
    monkeypatch.setattr(StubSession, "names", names)
    (tmp_path / "model.onnx").write_bytes(b"")
    upstream = load_upstream(tmp_path / "model.onnx")
    assert upstream(torch.randn(1, 960))[0, 0, :, 0].tolist() == values
    assert upstream.layers == len(values)
