"""Readers of SUPERB's data as its corpora are distributed, one corpus a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from slimvox.evaluation.examples import ExampleSet
from slimvox.evaluation.readers.audio_snips import read_audio_snips
from slimvox.evaluation.readers.fluent_speech_commands import read_fluent_speech_commands
from slimvox.evaluation.readers.iemocap import read_iemocap
from slimvox.evaluation.readers.libri2mix import read_libri2mix
from slimvox.evaluation.readers.librispeech import read_librispeech_phones, read_librispeech_words
from slimvox.evaluation.readers.quesst14 import read_quesst14
from slimvox.evaluation.readers.speech_commands import read_speech_commands
from slimvox.evaluation.readers.voxceleb1 import read_voxceleb1_speakers, read_voxceleb1_trials
from slimvox.util.errors import SlimvoxError

_READERS: Mapping[str, Callable[[Path], Any]] = {
    "pr": read_librispeech_phones,
    "asr": read_librispeech_words,
    "ks": read_speech_commands,
    "qbe": read_quesst14,
    "sid": read_voxceleb1_speakers,
    "asv": read_voxceleb1_trials,
    "sd": read_libri2mix,
    "ic": read_fluent_speech_commands,
    "sf": read_audio_snips,
    "er": read_iemocap,
}


def read_official(task: str, data: Path) -> Sequence[ExampleSet[Any]]:
    """Read the official data of a task, one set per fold (ER has five, the others one).

    Args:
        task: `pr`, `asr`, `ks`, `qbe`, `sid`, `asv`, `sd`, `ic`, `sf` or `er`.
        data: the folder that holds the corpora, each in a folder of its usual name, or the one corpus's own folder.

    Raises:
        SlimvoxError: if the corpus is not there or not whole; the message says what to download, and how it must look.
    """
    if task not in _READERS:
        raise SlimvoxError(f"there is no task {task}; there are {', '.join(_READERS)}")
    found = _READERS[task](data)
    return found if isinstance(found, tuple) else (found,)
