"""Metadata of an exported file."""

from __future__ import annotations

import json

from slimvox._version import __version__
from slimvox.checkpoint.decoder import SPEECH_TO_TEXT
from slimvox.checkpoint.resolve import LoadedModel
from slimvox.exporters.reference import Reference
from slimvox.structures.anatomy import SAMPLE_RATE_HZ


def metadata(model: LoadedModel, reference: Reference, *, int8: bool) -> dict[str, str]:
    """Metadata of a model as plain strings, as ONNX requires: its inputs, its outputs and its origin."""
    anatomy = model.encoder.anatomy
    about = {
        "slimvox_version": __version__,
        "model": model.public_name,
        "teacher": _teacher(model),
        "family": anatomy.family,
        "parameters": str(model.encoder.parameter_count),
        "sample_rate_hz": str(SAMPLE_RATE_HZ),
        "downsample_rate": str(anatomy.hop),
        "shortest_samples": str(reference.shortest_samples),
        "width": str(anatomy.width),
        "layers": reference.signature.layers,
        # Done inside the graph where true: waveforms are given as they are.
        "normalize_waveform": json.dumps(anatomy.normalize_waveform),
        "precision": "int8" if int8 else "float32",
    }
    head = reference.head
    if head is not None:
        name = type(head).__name__.removeprefix("Slimvox")
        about["head"] = name
        if name == "CrossProjections":
            about["head"] = SPEECH_TO_TEXT
        elif name == "ForCTC":
            about["blank"] = str(head.config.pad_token_id)
        else:
            about["labels"] = json.dumps(
                [head.config.id2label[index] for index in range(head.config.num_labels)]
            )
    return about


def _teacher(model: LoadedModel) -> str:
    """Model that it was pruned from; the model itself if it was not pruned."""
    teacher = model.teacher
    return model.public_name if teacher is None else str(teacher["name"] or "unknown")
