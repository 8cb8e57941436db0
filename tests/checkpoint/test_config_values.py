"""Every value in a `config.json` is checked: a wrong one is one sentence that names it, and never another encoder."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import models
import slimvox
from slimvox.checkpoint import write_slimvox_directory
from slimvox.checkpoint.resolve import find_anatomies

NUMBERS = (None, -1, 0, 1.5, 1e300, float("nan"), float("inf"), 10**12, "no", "12", [], [[]], {}, True)
FLAGS = (None, 0, 1, 0.0, "no", "false", [], {})
LISTS = (None, 5, "no", {}, [None], [0], [1.5], [True], ["12"], [[]], [10**12])


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A WavLM, saved by `transformers`."""
    return models.directory(tmp_path_factory.mktemp("original"), "wavlm", "large")


@pytest.fixture(scope="module")
def ours(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, written by slimvox."""
    path = tmp_path_factory.mktemp("ours")
    write_slimvox_directory(slimvox.load(original), path, kept_indices={}, model_card="")
    return path


def error_for(config: Any, directory: Path) -> str:
    """The message for a configuration, which has to be refused."""
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config))
    with pytest.raises(slimvox.SlimvoxError) as caught:
        find_anatomies(directory)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 600
    return message


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("hidden_size", NUMBERS),
        ("num_attention_heads", NUMBERS),
        ("num_hidden_layers", NUMBERS),
        ("intermediate_size", NUMBERS),
        ("num_conv_pos_embeddings", NUMBERS),
        ("num_conv_pos_embedding_groups", NUMBERS),
        ("num_buckets", NUMBERS),
        ("max_bucket_distance", NUMBERS),
        ("layer_norm_eps", (*NUMBERS, 1, 2)),
        ("conv_bias", FLAGS),
        ("do_stable_layer_norm", FLAGS),
        ("conv_dim", LISTS),
        ("conv_kernel", LISTS),
        ("conv_stride", LISTS),
        ("feat_extract_norm", (None, 5, "no", [], True)),
        ("model_type", (None, 5, "bert", [], {})),
    ],
)
def test_a_wrong_value_in_a_configuration_of_transformers_is_named(
    name: str, values: tuple[object, ...], original: Path, tmp_path: Path
) -> None:
    config = json.loads((original / "config.json").read_text())
    for value in values:
        message = error_for({**config, name: value}, tmp_path)
        assert f"`{name}`" in message or f"`{name}[0]`" in message


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of the values in nested objects and lists; only the first value of each list."""
    if isinstance(value, dict):
        for name in value:
            yield from places(value[name], (*path, name))
    elif isinstance(value, list) and value:
        yield path
        yield from places(value[0], (*path, 0))
    else:
        yield path


def test_a_wrong_value_in_a_configuration_of_slimvox_is_named(ours: Path, tmp_path: Path) -> None:
    config = json.loads((ours / "config.json").read_text())
    for place in places({name: config[name] for name in ("anatomy", "dense_anatomy")}):
        for value in (None, -1, 1.5, 1e300, float("nan"), 10**12, "no", {}, [[]], [5]):
            changed = copy.deepcopy(config)
            target = changed
            for name in place[:-1]:
                target = target[name]
            target[place[-1]] = value
            assert "anatomy" in error_for(changed, tmp_path), (place, value)


@pytest.mark.parametrize("name", ["anatomy", "dense_anatomy", "format_version"])
def test_a_missing_field_of_slimvox_is_named(name: str, ours: Path, tmp_path: Path) -> None:
    config = json.loads((ours / "config.json").read_text())
    del config[name]
    assert f"`{name}`" in error_for(config, tmp_path)
    inner = json.loads((ours / "config.json").read_text())
    if name in inner and isinstance(inner[name], dict):
        del inner[name]["layers"]
        assert "the field 'layers' is missing" in error_for(inner, tmp_path)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ((), "an anatomy has no field 'toes'; a newer slimvox may know it"),
        (("convolutions", 0), "a convolution has no field 'toes'"),
        (("layers", 0), "a layer has no field 'toes'"),
    ],
)
def test_an_unknown_field_of_an_anatomy_is_named(
    place: tuple[Any, ...], message: str, ours: Path, tmp_path: Path
) -> None:
    config = json.loads((ours / "config.json").read_text())
    target = config["anatomy"]
    for name in place:
        target = target[name]
    target["toes"] = 5
    said = error_for(config, tmp_path)
    assert (
        f"config.json is damaged, in `anatomy`: invalid anatomy: {message}" in said and "__init__" not in said
    )


@pytest.mark.parametrize("taps", [5, [5], [["one"]], [[[]]]])
def test_taps_of_the_wrong_type_are_named(taps: Any, ours: Path, tmp_path: Path) -> None:
    config = json.loads((ours / "config.json").read_text())
    config["anatomy"]["position_taps"] = taps
    assert "in `anatomy`: invalid anatomy: `position_taps` must be" in error_for(config, tmp_path)


def test_an_anatomy_that_is_larger_than_the_dense_one_is_refused(ours: Path, tmp_path: Path) -> None:
    config = json.loads((ours / "config.json").read_text())
    for edit in (
        lambda dense: dense["layers"].pop(),
        lambda dense: dense["layers"][1].update(intermediate=47),
        lambda dense: dense["layers"][0]["heads"].pop(),
        lambda dense: dense["layers"][0]["heads"].__setitem__(0, [0, 7, 8]),
        lambda dense: dense["convolutions"][1].update(channels=11),
        lambda dense: dense["convolutions"][1].update(stride=1),
        lambda dense: dense.update(layer_norm_eps=1e-6),
    ):
        changed = copy.deepcopy(config)
        edit(changed["dense_anatomy"])
        assert "`anatomy` must be a part of `dense_anatomy`" in error_for(changed, tmp_path)


@pytest.mark.parametrize("content", ["[" * 100_000, "5", '"text"', "", "\x00"])
def test_a_configuration_that_is_not_a_json_object_is_one_sentence(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(
        slimvox.SlimvoxError, match=r"config\.json (is not valid JSON|must hold a JSON object)"
    ):
        slimvox.load(tmp_path)


@pytest.mark.parametrize("name", ["intermediate_size", "num_buckets", "num_conv_pos_embeddings"])
def test_sizes_beyond_memory_are_one_sentence(name: str, original: Path, tmp_path: Path) -> None:
    config = json.loads((original / "config.json").read_text())
    huge = {"hidden_size": 2**31 - 8, "max_bucket_distance": 2**31 - 1, name: 2**31 - 9}
    (tmp_path / "config.json").write_text(json.dumps({**config, **huge}))
    (tmp_path / "model.safetensors").write_bytes((original / "model.safetensors").read_bytes())
    with pytest.raises(slimvox.SlimvoxError, match="cannot be built"):
        slimvox.load(tmp_path)


def test_a_batch_norm_before_the_positional_convolution_is_refused(tmp_path: Path) -> None:
    models.directory(tmp_path, "hubert", conv_pos_batch_norm=True)
    with pytest.raises(slimvox.SlimvoxError, match=r"`conv_pos_batch_norm` .* cannot be folded"):
        slimvox.load(tmp_path)
