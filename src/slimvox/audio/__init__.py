"""Audio in: find files, measure them, plan batches, decode them in the background.

find_audio -> scan_audio -> BatchPlan -> AudioBatches
"""

from slimvox.audio.batches import BatchPlan, CropSpec
from slimvox.audio.decode import (
    SkipReason,
    UnreadableAudioError,
    iter_audio_blocks,
    read_audio,
)
from slimvox.audio.find import AudioInput, as_sources, find_audio, source_name
from slimvox.audio.loader import AudioBatch, AudioBatches
from slimvox.audio.scan import AudioClip, AudioScan, scan_audio
from slimvox.audio.skips import SkipCounter, SkippedFile
from slimvox.audio.sources import AUDIO_EXTENSIONS, AudioSource
from slimvox.structures.anatomy import SAMPLE_RATE_HZ

__all__ = [
    "AUDIO_EXTENSIONS",
    "SAMPLE_RATE_HZ",
    "AudioBatch",
    "AudioBatches",
    "AudioClip",
    "AudioInput",
    "AudioScan",
    "AudioSource",
    "BatchPlan",
    "CropSpec",
    "SkipCounter",
    "SkipReason",
    "SkippedFile",
    "UnreadableAudioError",
    "as_sources",
    "find_audio",
    "iter_audio_blocks",
    "read_audio",
    "scan_audio",
    "source_name",
]
