"""Weight files: safetensors or weights-only pickles, whole or in shards; code in them is never run."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from slimvox.checkpoint.json_fields import Fields, read_json
from slimvox.families.base import FIRST_WEIGHT
from slimvox.util.errors import NotFiniteError, SlimvoxError, reason_of

WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""Files that a model's weights may be in, in the order in which they are looked for; `.index.json` lists shards."""
INDEX_SUFFIX = ".index.json"
_SHARD = re.compile(r"(model-\d+-of-\d+\.safetensors|pytorch_model-\d+-of-\d+\.bin)")


@dataclass(frozen=True, kw_only=True)
class Split:
    """The tensors of a checkpoint, sorted."""

    encoder: dict[str, Tensor]
    """Tensors of the encoder, named as in the bare model."""
    head: dict[str, Tensor]
    """All other tensors: task heads, quantizers."""
    prefix: str
    """Prefix of the encoder's names in the checkpoint, such as `wavlm.`; empty for a bare encoder."""

    @property
    def head_modules(self) -> tuple[str, ...]:
        """Names of the modules that are not part of the encoder."""
        return tuple(dict.fromkeys(name.rpartition(".")[0] or name for name in self.head))


def read_tensors(directory: Path) -> dict[str, Tensor]:
    """Read all tensors of a checkpoint.

    Returns:
        The tensors by name, on the CPU, as stored.

    Raises:
        SlimvoxError: if there are no weights, a shard is missing, or a file is damaged or holds more than tensors.
    """
    tensors: dict[str, Tensor] = {}
    for file in weight_files(directory):
        tensors.update(_read_file(file))
    return tensors


def weight_files(directory: Path) -> tuple[Path, ...]:
    """The files that the weights of a model are read from: one, or the shards of one.

    Raises:
        SlimvoxError: if there are no weights, or a shard is missing.
    """
    name = next((name for name in WEIGHT_FILES if (directory / name).is_file()), None)
    if name is None:
        raise SlimvoxError(
            f"{directory}: there are no weights (model.safetensors or pytorch_model.bin, whole or in shards)"
        )
    if not name.endswith(INDEX_SUFFIX):
        return (directory / name,)
    files = tuple(directory / shard for shard in shard_names(directory / name))
    for file in files:
        if not file.is_file():
            raise SlimvoxError(f"{directory}: the shard {file.name}, which {name} names, is missing")
    return files


def remove_stale_weights(directory: Path, *, keep: str) -> None:
    """Remove the weight files of `transformers` and slimvox in a directory, whole or in shards, except one."""
    for path in directory.iterdir():
        if path.name != keep and (path.name in WEIGHT_FILES or _SHARD.fullmatch(path.name)):
            path.unlink()


def shard_names(index: Path) -> tuple[str, ...]:
    """Names of the shards that an index file lists, each once, all in the folder of the index.

    Raises:
        SlimvoxError: if the index is damaged or names a file elsewhere.
    """
    weight_map = Fields(read_json(index), index).get("weight_map", dict[str, str])
    if not weight_map:
        raise SlimvoxError(f"{index}: `weight_map` must name the file of each tensor, but is empty")
    for shard in weight_map.values():
        if not shard.endswith((".safetensors", ".bin")) or set(shard) & set("/\\"):
            raise SlimvoxError(f"{index}: {shard!r} is not the name of a weight file in the same folder")
    return tuple(sorted(set(weight_map.values())))


def _read_file(path: Path) -> dict[str, Tensor]:
    read: Callable[[Path], dict[str, Tensor]] = load_file if path.suffix == ".safetensors" else _read_pickle
    try:
        return read(path)
    except SlimvoxError:
        raise
    except (OSError, KeyError, ValueError, SafetensorError, RuntimeError, EOFError) as error:
        raise SlimvoxError(
            f"{path}: the weights cannot be read, the file may be damaged: {reason_of(error)}"
        ) from error


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise SlimvoxError(f"{path} cannot be loaded as plain weights: {reason_of(error)}") from error
    if not isinstance(loaded, dict) or not all(isinstance(name, str) for name in loaded):
        raise SlimvoxError(f"{path} must hold tensors by name, but holds {type(loaded).__name__} instead")
    return {name: tensor for name, tensor in loaded.items() if isinstance(tensor, Tensor)}


WRAPPERS = ("_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Parts of names that torch.compile, DistributedDataParallel, FSDP and activation checkpointing add."""


def plain_name(name: str) -> str:
    """The name of a tensor without the parts that wrappers add."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def split_checkpoint(
    tensors: dict[str, Tensor],
    source: Path | str,
    *,
    modules: Sequence[str],
    first_weight: str = FIRST_WEIGHT,
    unused: Sequence[str] = (),
    prefix: str,
) -> Split:
    """Sort the tensors of a checkpoint into the encoder's and all others.

    The encoder may lie below any prefix (`wavlm.`, `model.wav2vec2.`), which is found by its first convolution.

    Args:
        tensors: tensors by name, as stored.
        source: where they come from, for messages.
        modules: names of the encoder's modules, such as `feature_projection`.
        first_weight: name of the weight of its first convolution.
        unused: names of its parameters that only pre-training uses; they are dropped.
        prefix: the prefix to take where a checkpoint holds several encoders (those of a teacher and a student).

    Raises:
        SlimvoxError: if there is no encoder, or there are several and none is at `prefix`.
    """
    plain: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        short = plain_name(name)
        if short in plain:
            raise SlimvoxError(f"{source}: the weights contain {short} twice, once as {name}")
        plain[short] = tensor
    prefixes = [name.removesuffix(first_weight) for name in plain if f".{name}".endswith(f".{first_weight}")]
    if len(prefixes) > 1 and prefix in prefixes:
        prefixes = [prefix]
    if len(prefixes) != 1:
        found = f"encoders at {', '.join(map(repr, prefixes))}" if prefixes else f"no {first_weight}"
        raise SlimvoxError(f"{source}: the weights must hold one encoder, but there are {found}")
    (start,) = prefixes
    starts = tuple(f"{start}{module}." for module in modules)
    dropped = {f"{start}{name}" for name in unused}
    return Split(
        encoder={n.removeprefix(start): tensor for n, tensor in plain.items() if n.startswith(starts)},
        head={n: tensor for n, tensor in plain.items() if not n.startswith(starts) and n not in dropped},
        prefix=start,
    )


def as_float32(tensors: Mapping[str, Tensor], source: Path | str) -> dict[str, Tensor]:
    """Convert weights of any floating-point type to float32.

    Raises:
        SlimvoxError: naming a tensor that is of another type (quantised weights).
        NotFiniteError: naming a tensor that holds NaN or infinite values.
    """
    converted = {}
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise SlimvoxError(
                f"{source}: {name} must hold floating-point numbers, but holds {tensor.dtype} instead; quantised"
                " weights are not supported"
            )
        converted[name] = tensor.float()
        if not _is_finite(converted[name]):
            raise NotFiniteError(
                f"{source}: `{name}` holds NaN or infinite values, so the model cannot be used:"
                " download or create it again"
            )
    return converted


def load_exactly(model: nn.Module, tensors: dict[str, Tensor], source: Path | str) -> None:
    """Load tensors into a model; none may be missing, unknown or of another shape.

    Raises:
        SlimvoxError: naming what is missing, unknown or of another shape.
    """
    if problems := mismatches(model, tensors):
        shown = "; ".join(problems[:5]) + (f"; and {len(problems) - 5} more" if len(problems) > 5 else "")
        raise SlimvoxError(f"{source}: the weights do not fit config.json: {shown}")
    model.load_state_dict(tensors)


def mismatches(model: nn.Module, tensors: Mapping[str, Tensor]) -> list[str]:
    """Differences between tensors and the weights of a model (missing, unknown, of another shape), one text each."""
    expected = model.state_dict()
    problems = [f"missing: {name}" for name in expected if name not in tensors]
    problems += [f"unknown: {name}" for name in tensors if name not in expected]
    for name, tensor in tensors.items():
        if name in expected and tensor.shape != expected[name].shape:
            shape = tuple(expected[name].shape)
            problems.append(f"{name} must be {shape}, but is {tuple(tensor.shape)} instead")
    return problems


def _is_finite(tensor: Tensor) -> bool:
    """True if all values are finite. Their sum, which is checked first, takes a third of the time of checking each."""
    return bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all())
