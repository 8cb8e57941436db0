"""Speech that determines the scales of int8 activations, and other speech on which the error is measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from slimvox.audio import AudioInput, UnreadableAudioError, find_audio, read_audio
from slimvox.embedded import audio_files
from slimvox.exporters.reference import Reference
from slimvox.structures.anatomy import SAMPLE_RATE_HZ
from slimvox.util.errors import SlimvoxError

SCALE_CLIPS, ERROR_CLIPS = 24, 8
"""Maximum number of clips for the scales and for the error, spread evenly over the audio."""
MOST_SECONDS = 10.0
"""Length to which clips are cut."""
QUIETEST = 1e-4
"""Minimum root mean square of a clip, of a full scale of 1: 80 dB below it is silence."""
Clips = Sequence[NDArray[np.float32]]
"""Waveforms, each (samples,)."""


@dataclass(frozen=True, kw_only=True)
class Int8Speech:
    """Clips for quantising a file to int8 and for measuring its error."""

    scales: Clips
    """Clips that determine the scales of the activations."""
    error: Clips
    """Other clips, on which the error is measured."""
    error_source: str
    """Description of the latter, such as "the embedded speech"."""


def int8_speech(audio: Sequence[AudioInput], reference: Reference) -> Int8Speech:
    """Clips of the user's audio, of which every fourth is for the error; by default of the embedded speech, whose
    training part is for the scales and whose test part is for the error.

    With fewer than four clips of the user's, all are for the scales, and the error is measured on the embedded speech.

    Raises:
        SlimvoxError: if there is no audio, or no clip that can be read, is long enough and is not silent.
    """
    own = spread(audio, SCALE_CLIPS + ERROR_CLIPS, reference) if audio else []
    if audio and not own:
        raise SlimvoxError(
            "`calibration` holds no clip that can be read, is long enough and is not silent: give it speech"
        )
    every = (SCALE_CLIPS + ERROR_CLIPS) // ERROR_CLIPS
    error = own[every - 1 :: every]
    if error:
        scales = [clip for place, clip in enumerate(own, start=1) if place % every]
        return Int8Speech(
            scales=scales, error=error, error_source=f"{len(error)} other clips of the calibration audio"
        )
    return Int8Speech(
        scales=own or spread(audio_files("train"), SCALE_CLIPS, reference),
        error=embedded_test_clips(reference),
        error_source="the embedded speech",
    )


def embedded_test_clips(reference: Reference) -> list[NDArray[np.float32]]:
    """Clips of the embedded test speech."""
    return spread(audio_files("test"), ERROR_CLIPS, reference)


def spread(audio: Sequence[AudioInput], most: int, reference: Reference) -> list[NDArray[np.float32]]:
    """Waveforms of at most `most` clips, spread evenly over audio. Clips that are unreadable, silent or shorter than a
    frame are left out.
    """
    longest = reference.encoder.anatomy.most_samples
    seconds = min(MOST_SECONDS, math.inf if longest is None else longest / SAMPLE_RATE_HZ)
    found = find_audio(audio)
    clips = []
    for index in np.unique(np.linspace(0, len(found) - 1, most).round().astype(int)):
        source = found[int(index)]
        length = seconds if source.seconds is None else min(seconds, source.seconds)
        try:
            clip = read_audio(
                source.path, offset_seconds=source.offset_seconds, seconds=length, channel=source.channel
            )
        except UnreadableAudioError:
            continue
        if len(clip) >= reference.shortest_samples and np.sqrt(np.mean(np.square(clip))) > QUIETEST:
            clips.append(clip)
    return clips
