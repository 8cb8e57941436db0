"""Reading of audio: finding and measuring files, planning batches, and decoding in the background.

index_audio (find_audio -> scan_audio, cached) -> BatchPlan -> AudioBatches
"""

from slimvox.audio.batches import BatchPlan, CropSpec
from slimvox.audio.decode import (
    UnreadableAudioError,
    iter_audio_blocks,
    read_audio,
)
from slimvox.audio.find import AudioInput, as_sources, find_audio, source_name
from slimvox.audio.index import index_audio
from slimvox.audio.loader import AudioBatch, AudioBatches
from slimvox.audio.mix import WeightedAudio
from slimvox.audio.scan import AudioScan, scan_audio
from slimvox.audio.skips import SkipCounter, SkippedFile
from slimvox.audio.sources import AUDIO_EXTENSIONS, AudioClip, AudioSource, SkipReason
from slimvox.audio.table import AudioTable
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
    "AudioTable",
    "BatchPlan",
    "CropSpec",
    "SkipCounter",
    "SkipReason",
    "SkippedFile",
    "UnreadableAudioError",
    "WeightedAudio",
    "as_sources",
    "find_audio",
    "index_audio",
    "iter_audio_blocks",
    "read_audio",
    "scan_audio",
    "source_name",
]
