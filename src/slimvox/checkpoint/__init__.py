"""Encoders in and out: `transformers` checkpoints, slimvox directories, the hub."""

from slimvox.checkpoint.directory import write_slimvox_directory
from slimvox.checkpoint.pretrained import push_encoder, save_encoder
from slimvox.checkpoint.resolve import LoadedModel, find_model, load, load_model

__all__ = [
    "LoadedModel",
    "find_model",
    "load",
    "load_model",
    "push_encoder",
    "save_encoder",
    "write_slimvox_directory",
]
