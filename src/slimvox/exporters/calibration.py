"""Speech for determining the scales of int8 activations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from slimvox.audio import AudioInput, UnreadableAudioError, find_audio, read_audio
from slimvox.embedded import audio_files
from slimvox.exporters import int8
from slimvox.exporters.reference import Reference
from slimvox.util.errors import SlimvoxError

CLIPS = 24
"""Maximum number of clips, spread evenly over the audio."""
QUIETEST = 1e-4
"""Minimum root mean square of a clip, of a full scale of 1: 80 dB below it is silence."""


def calibration_clips(audio: Sequence[AudioInput], reference: Reference) -> list[NDArray[np.float32]]:
    """Waveforms (samples,) of audio, by default of the embedded training speech.

    Raises:
        SlimvoxError: if there is no audio, or no clip that can be read, is long enough and is not silent.
    """
    found = find_audio(audio or audio_files("train"))
    seconds = int8.seconds_that_fit(int8.ERROR_SECONDS, reference)
    clips = []
    for index in np.unique(np.linspace(0, len(found) - 1, CLIPS).round().astype(int)):
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
    if not clips:
        raise SlimvoxError(
            "`calibration` holds no clip that can be read, is long enough and is not silent: give it speech"
        )
    return clips
