"""Reading of the samples of crops; unusable files are counted with their reason."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from slimvox.audio.batches import CropSpec
from slimvox.audio.cache import ClipCache
from slimvox.audio.decode import FloatArray, UnreadableAudioError, read_audio
from slimvox.audio.skips import SkipCounter
from slimvox.audio.sources import AudioClip

SILENT_PEAK = 1e-4
"""Peak up to which audio is silence (-80 dB of full scale)."""
WHOLE_CLIP_SECONDS = 60.0
"""Maximum length of clips that are decoded whole and may be kept in memory; of longer ones only the crop is read."""
_MISSING_SAMPLES_ALLOWED = 400
"""Maximum number of samples by which decoding may fall short of the header (resampling, codec delay): one
frame, 25 ms."""


class CropReader:
    """Reads crops of `clips`, from any thread; a short clip that was unusable is not tried again."""

    def __init__(
        self, clips: Sequence[AudioClip], *, sample_rate_hz: int, cache: ClipCache, skips: SkipCounter
    ) -> None:
        self._clips = clips
        self._sample_rate_hz = sample_rate_hz
        self._cache = cache
        self._skips = skips
        # Only a shortcut, since trying again would fail again. Adding to a set is atomic.
        self._unusable: set[int] = set()

    def read(self, crop: CropSpec) -> FloatArray | None:
        """Return the waveform (crop.samples,); None if the file is unusable, which is then counted in `skips`.

        The result depends only on the file, not on the cache nor on earlier reads.
        """
        if crop.clip in self._unusable:
            return None
        clip = self._clips[crop.clip]
        try:
            if clip.seconds <= WHOLE_CLIP_SECONDS:
                whole = self._whole(crop.clip, clip)
                start = max(0, min(crop.start, len(whole) - crop.samples))
                waveform = whole[start : start + crop.samples]
            else:
                waveform = self._part(clip, crop)
        except UnreadableAudioError as error:
            # Another part of a long clip may be usable, and the result must not depend on which was tried first.
            if clip.seconds <= WHOLE_CLIP_SECONDS:
                self._unusable.add(crop.clip)
            self._skips.add(clip.path, error.reason, error.detail)
            return None
        if _is_silent(waveform):
            self._skips.add(clip.path, "silent part", f"no sound in {self._describe(clip, crop)}")
            return None
        return np.pad(waveform, (0, crop.samples - len(waveform)))

    def _whole(self, index: int, clip: AudioClip) -> FloatArray:
        waveform = self._cache.get(index)
        if waveform is None:
            waveform = read_audio(
                clip.path,
                sample_rate_hz=self._sample_rate_hz,
                offset_seconds=clip.offset_seconds,
                seconds=clip.seconds,
                channel=clip.channel,
            )
            self._check_length(clip, len(waveform), int(clip.seconds * self._sample_rate_hz))
            if _is_silent(waveform):
                detail = f"it never exceeds {SILENT_PEAK:g} of full scale"
                raise UnreadableAudioError(clip.path, "silent", detail)
            self._cache.put(index, waveform)
        return waveform

    def _part(self, clip: AudioClip, crop: CropSpec) -> FloatArray:
        waveform = read_audio(
            clip.path,
            sample_rate_hz=self._sample_rate_hz,
            offset_seconds=clip.offset_seconds + crop.start / self._sample_rate_hz,
            # Slightly more, so that rounding to the file's sample rate cannot make the crop a sample too short.
            seconds=(crop.samples + 32) / self._sample_rate_hz,
            channel=clip.channel,
        )[: crop.samples]
        self._check_length(clip, crop.start + len(waveform), crop.start + crop.samples)
        return waveform

    def _check_length(self, clip: AudioClip, samples: int, expected: int) -> None:
        if samples < expected - _MISSING_SAMPLES_ALLOWED:
            have, want = (count / self._sample_rate_hz for count in (samples, expected))
            detail = f"it ends after {have:.2f} s where {want:.2f} s were promised"
            raise UnreadableAudioError(clip.path, "truncated", detail)

    def _describe(self, clip: AudioClip, crop: CropSpec) -> str:
        start = clip.offset_seconds + crop.start / self._sample_rate_hz
        return f"{start:.2f} to {start + crop.samples / self._sample_rate_hz:.2f} s"


def _is_silent(waveform: FloatArray) -> bool:
    return len(waveform) == 0 or max(float(waveform.max()), -float(waveform.min())) < SILENT_PEAK
