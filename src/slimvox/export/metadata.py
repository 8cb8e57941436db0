"""What an exported file says about itself."""

from __future__ import annotations

import json

import slimvox
from slimvox.anatomy import SAMPLE_RATE_HZ
from slimvox.checkpoint.directory import is_slimvox_directory
from slimvox.checkpoint.resolve import LoadedModel
from slimvox.checkpoint.transformers_reader import read_json


def metadata(model: LoadedModel, *, layers: str, int8: bool) -> dict[str, str]:
    """Plain strings, as ONNX wants them: what to feed the model, and where it is from."""
    anatomy = model.encoder.anatomy
    return {
        "slimvox_version": slimvox.__version__,
        "model": model.public_name,
        "teacher": _teacher(model),
        "family": anatomy.family,
        "parameters": str(model.encoder.parameter_count),
        "sample_rate_hz": str(SAMPLE_RATE_HZ),
        "downsample_rate": str(anatomy.hop),
        "shortest_samples": str(anatomy.receptive_field),
        "width": str(anatomy.width),
        "layers": layers,
        # Done inside the graph where true: waveforms are given as they are.
        "normalize_waveform": json.dumps(anatomy.normalize_waveform),
        "precision": "int8" if int8 else "float32",
    }


def _teacher(model: LoadedModel) -> str:
    """What it was pruned from; itself if it was not pruned."""
    if is_slimvox_directory(model.directory):
        teacher = read_json(model.directory / "config.json").get("teacher")
        if isinstance(teacher, dict):
            teacher = teacher.get("name")
        return str(teacher) if teacher else "unknown"
    return model.public_name
