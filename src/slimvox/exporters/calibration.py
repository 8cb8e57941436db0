"""Speech that determines the scales of int8 activations, and other speech on which the error is measured."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from slimvox.audio import AudioInput, UnreadableAudioError, find_audio, read_audio
from slimvox.embedded import audio_files
from slimvox.exporters.reference import Reference
from slimvox.structures.anatomy import SAMPLE_RATE_HZ
from slimvox.util.errors import SlimvoxError

SCALE_CLIPS, ERROR_CLIPS = 24, 8
"""Maximum number of clips for the scales and for the error, spread evenly over the audio."""
MOST_FRAMES = 500
"""Length to which clips are cut, in frames: 10 s at 50 frames per second."""
QUIETEST = 1e-4
"""Minimum root mean square of a clip, of a full scale of 1: 80 dB below it is silence."""
Clips = Sequence[NDArray[np.float32]]
"""Waveforms, each (samples,)."""


class Int8Speech:
    """Clips for quantising a file to int8 and for measuring its error.

    Every fourth clip of the user's audio is for the error. Without audio, the training part of the embedded speech is
    for the scales and its test part for the error. If the user's audio has fewer than four clips, all are for the
    scales, and the error is measured on the embedded speech. That speech is read only when it is needed.
    """

    def __init__(self, audio: Sequence[AudioInput], reference: Reference) -> None:
        """Read the user's audio.

        Raises:
            SlimvoxError: if there is no audio, or no clip that can be read, is long enough and is not silent.
        """
        self._reference = reference
        own = spread(audio, SCALE_CLIPS + ERROR_CLIPS, reference) if audio else []
        if audio and not own:
            raise SlimvoxError(
                "`calibration` holds no clip that can be read, is long enough and is not silent: give it speech"
            )
        every = (SCALE_CLIPS + ERROR_CLIPS) // ERROR_CLIPS
        self._own_error = own[every - 1 :: every]
        self._own_scales = [clip for place, clip in enumerate(own, start=1) if place % every]

    @cached_property
    def scales(self) -> Clips:
        """Clips that determine the scales of the activations."""
        return self._own_scales or spread(audio_files("train"), SCALE_CLIPS, self._reference)

    @cached_property
    def error(self) -> Clips:
        """Other clips, on which the error is measured."""
        return self._own_error or embedded_test_clips(self._reference)

    @property
    def error_source(self) -> str:
        """Description of `error`, such as "the embedded speech"."""
        count = len(self._own_error)
        return f"{count} other clips of the calibration audio" if count else "the embedded speech"


def embedded_test_clips(reference: Reference) -> list[NDArray[np.float32]]:
    """Clips of the embedded test speech."""
    return spread(audio_files("test"), ERROR_CLIPS, reference)


def spread(audio: Sequence[AudioInput], most: int, reference: Reference) -> list[NDArray[np.float32]]:
    """Waveforms of at most `most` clips, spread evenly over audio. Clips that are unreadable, silent or shorter than a
    frame are left out.
    """
    anatomy = reference.encoder.anatomy
    longest = MOST_FRAMES * anatomy.hop
    if anatomy.most_samples is not None:
        longest = min(longest, anatomy.most_samples)
    seconds = longest / SAMPLE_RATE_HZ
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
