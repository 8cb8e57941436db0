"""The files beside weights and configuration: code, feature extractor, model card, kept indices."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

from slimvox.hf.configuration import DescribesEncoder
from slimvox.hf.directory_format import CODE_FILES, ENCODER_CODE, WHISPER_FILES, WHISPER_MODEL_TYPE
from slimvox.structures.anatomy import MEL_HOP, MEL_WINDOW, SAMPLE_RATE_HZ, EncoderAnatomy

MODEL_CARD = "README.md"
CARRIED = (MODEL_CARD, "kept_indices.json")
"""Files that are copied from the directory that a model was loaded from."""
GENERIC_CARD = "This model card has been automatically generated"
"""Text of the model card that `transformers` pushes if there is none."""


def preprocessor_config(anatomy: EncoderAnatomy) -> dict[str, Any]:
    """`preprocessor_config.json` with the settings of a Wav2Vec2FeatureExtractor for this encoder.

    Models with a group-norm front end get no attention mask, as they were trained without one. Whisper's spectrogram is
    computed in the encoder.
    """
    return {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "do_normalize": anatomy.normalize_waveform,
        "feature_size": 1,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": anatomy.conv_norm != "group",
        "sampling_rate": SAMPLE_RATE_HZ,
    }


def whisper_preprocessor_config(anatomy: EncoderAnatomy) -> dict[str, Any]:
    """`preprocessor_config.json` of a `WhisperFeatureExtractor`, for a Whisper without one."""
    return {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "chunk_length": anatomy.position_table * anatomy.hop // SAMPLE_RATE_HZ,
        "feature_size": anatomy.mel_bins,
        "hop_length": MEL_HOP,
        "n_fft": MEL_WINDOW,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": False,
        "sampling_rate": SAMPLE_RATE_HZ,
    }


def code_files(*, whisper: bool) -> dict[str, str]:
    """The source of the code files: generated within slimvox; code saved with a model is copied unchanged."""
    names = CODE_FILES if whisper else ENCODER_CODE
    if not __name__.startswith("slimvox."):
        return {name: Path(__file__).with_name(name).read_text(encoding="utf-8") for name in names}
    # Imported by name, because the generator is not part of the code that travels.
    generated: dict[str, str] = importlib.import_module("slimvox.hf.travelling_code").travelling_files()
    return {name: generated[name] for name in names}


def write_companions(directory: Path, config: DescribesEncoder, origin: Path | None) -> None:
    """Write everything that a directory needs besides `config.json` and weights.

    Code is always written. Other files are not replaced if they exist, except for a generic model card. A directory of
    origin that is no longer there gives a warning.

    Args:
        directory: directory of the model.
        config: configuration of the model.
        origin: directory that the model was loaded from, if it is known, see `find_origin`.

    Raises:
        OSError: if the disk is full or the directory cannot be written.
    """
    whisper = type(config).model_type == WHISPER_MODEL_TYPE  # type: ignore[attr-defined]
    for name, source in code_files(whisper=whisper).items():
        (directory / name).write_text(source, encoding="utf-8")
    if origin is not None and not origin.is_dir():
        warnings.warn(
            f"{origin}, from which the model was loaded, is no longer there, so its model card, its kept indices and"
            " its tokenizer are not copied",
            stacklevel=3,
        )
    elif origin is not None:
        for name in (*CARRIED, *WHISPER_FILES) if whisper else CARRIED:
            file, there = origin / name, directory / name
            if file.is_file() and not _has_its_own(there) and file.resolve() != there.resolve():
                shutil.copyfile(file, there)
    if not any(
        (directory / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")
    ):
        described = (whisper_preprocessor_config if whisper else preprocessor_config)(config.encoder_anatomy)
        (directory / "preprocessor_config.json").write_text(json.dumps(described, indent=1))


def _has_its_own(file: Path) -> bool:
    return file.is_file() and not (
        file.name == MODEL_CARD and GENERIC_CARD in file.read_text(encoding="utf-8", errors="replace")
    )


def find_origin(
    model: str,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    subfolder: str = "",
) -> Path | None:
    """The directory that a model has just been loaded from: a local one, or that of a commit in the cache of the hub.

    It is looked up when the model is loaded, because the current folder and the branches in the cache change.

    Args:
        model: name or path of the model.
        revision: branch, tag or commit on the hub.
        cache_dir: folder of the cache; the default one if not given.
        subfolder: folder of the model within its directory or repository.

    Returns:
        The absolute path; None if there is no such directory.
    """
    from huggingface_hub import try_to_load_from_cache

    if os.path.isdir(model):
        return Path(model, subfolder).absolute()
    file = f"{subfolder}/config.json" if subfolder else "config.json"
    try:
        found = try_to_load_from_cache(model, file, cache_dir=cache_dir, revision=revision)
    except ValueError:  # raised by huggingface_hub for an invalid model id
        return None
    return Path(found).absolute().parent if isinstance(found, str) else None
