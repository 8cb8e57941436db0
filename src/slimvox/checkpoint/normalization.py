"""Normalisation of waveforms before the encoder, as decided by `transformers`' `AutoFeatureExtractor`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal

from slimvox.checkpoint.json_fields import Fields, Size, read_json
from slimvox.families import Family
from slimvox.structures.anatomy import SAMPLE_RATE_HZ
from slimvox.util.errors import SlimvoxError

logger = logging.getLogger("slimvox.checkpoint")

PROCESSOR, PREPROCESSOR = "processor_config.json", "preprocessor_config.json"
PREPROCESSOR_FILES = (PROCESSOR, PREPROCESSOR)
"""Files that may hold the settings of a feature extractor, in the order in which `transformers` looks at them."""
DEFAULTS = {"do_normalize": True, "sampling_rate": SAMPLE_RATE_HZ}
"""Defaults of a feature extractor for fields that are missing in the file."""


def normalizes_waveforms(directory: Path, family: Family) -> bool:
    """True if the feature extractor of a model brings each waveform to zero mean and unit variance.

    `transformers` 5 saves it inside `processor_config.json`, older versions as `preprocessor_config.json`; if both
    exist the former decides, and a missing `do_normalize` means true. If no file gives the setting, waveforms are left
    as they are, as the bare model of `transformers` does, and a warning says so.

    Args:
        directory: the model's.
        family: the model's. Where the encoder computes a spectrogram itself, the feature extractor must be set to the
            same one, and the answer is False.

    Raises:
        SlimvoxError: if the extractor is of another type or for another sampling rate than 16,000 Hz, or a file is
            damaged.
    """
    found = _extractor_settings(directory)
    if found is None and family.extractor_settings is not None:
        return False
    if found is None:
        logger.warning(
            "%s: neither %s nor %s says whether the model was trained on normalised waveforms, so they are not"
            ' normalised; most models with `feat_extract_norm` = "layer" need it: save the model\'s feature extractor'
            " beside it",
            directory,
            *PREPROCESSOR_FILES,
        )
        return False
    file, settings = found
    given = {name: value for name, value in settings.items() if value is not None}
    extractor, required = family.feature_extractor, family.extractor_settings or {}
    fields = Fields({**DEFAULTS, **required, "feature_extractor_type": extractor, **given}, file)
    fields.get("feature_extractor_type", Literal[extractor])
    if fields.get("sampling_rate", Size) != SAMPLE_RATE_HZ:
        raise SlimvoxError(
            f"{file}: `sampling_rate` must be {SAMPLE_RATE_HZ}, but is {given['sampling_rate']} instead; slimvox"
            " encodes 16 kHz audio only"
        )
    for name, value in required.items():
        if fields.values[name] != value:
            raise SlimvoxError(
                f"{file}: `{name}` must be {value}, which the encoder is computed with, but is"
                f" {fields.values[name]!r} instead"
            )
    return bool(fields.get("do_normalize", bool))


def _extractor_settings(directory: Path) -> tuple[Path, dict[str, Any]] | None:
    """The settings of the feature extractor, with the file that they are in."""
    processor, preprocessor = directory / PROCESSOR, directory / PREPROCESSOR
    if processor.is_file():
        content = read_json(processor)
        if "feature_extractor" in content:
            settings = Fields(content, processor).get("feature_extractor", dict[str, Any])
            return processor, settings
    return (preprocessor, read_json(preprocessor)) if preprocessor.is_file() else None
