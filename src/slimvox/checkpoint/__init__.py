"""Loading and saving of encoders: `transformers` checkpoints, slimvox directories, the hub."""

from slimvox.checkpoint.directory import write_slimvox_directory
from slimvox.checkpoint.pretrained import (
    Model,
    check_repository_name,
    encoder_of,
    name_of,
    on_disk,
    push_directory,
    push_encoder,
    save_encoder,
)
from slimvox.checkpoint.resolve import LoadedModel, find_model, load, load_model

__all__ = [
    "LoadedModel",
    "Model",
    "check_repository_name",
    "encoder_of",
    "find_model",
    "load",
    "load_model",
    "name_of",
    "on_disk",
    "push_directory",
    "push_encoder",
    "save_encoder",
    "write_slimvox_directory",
]
