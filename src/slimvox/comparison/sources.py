"""Distance between an encoder and its teacher on several kinds of audio: languages, microphones, domains."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slimvox.audio import (
    AudioClip,
    AudioInput,
    SkipCounter,
    UnreadableAudioError,
    as_sources,
    index_audio,
    read_audio,
    source_name,
)
from slimvox.audio.find import printable
from slimvox.checkpoint import LoadedModel, Model, encoder_of, load_model, name_of
from slimvox.checkpoint.resolve import EMBEDDED, at_revision
from slimvox.comparison.distance import (
    FEWEST_FRAMES,
    StateDistances,
    frames_with_sound,
    hidden_state_distances,
)
from slimvox.encoder import SpeechEncoder
from slimvox.structures.anatomy import SAMPLE_RATE_HZ, EncoderAnatomy
from slimvox.util.devices import Device, evaluating, find_device
from slimvox.util.environment import hub_token
from slimvox.util.errors import SlimvoxError
from slimvox.util.validation import SecondsOrZero, Seed, checked_arguments

LONGEST_SECONDS = 30.0
"""Maximum seconds of a clip, or less for an encoder with a shorter window; longer clips are cut at the end."""


@dataclass(frozen=True, kw_only=True)
class SourceComparison:
    """Measurement on one source of audio."""

    source: str
    """Name of the source, as given."""
    clips: int
    """Clips it was measured on."""
    distances: StateDistances
    skipped: Mapping[str, int]
    """Files left out, by reason."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Distance between an encoder and its teacher, by source."""

    model: str
    teacher: str
    sources: tuple[SourceComparison, ...]
    """Measurements in the order in which the sources were given."""

    def to_dict(self) -> dict[str, Any]:
        """The comparison as JSON types."""
        return asdict(self)


@checked_arguments
def compare(
    model: Model,
    audio: AudioInput | Sequence[AudioInput],
    *,
    teacher: Model | None = None,
    seconds: SecondsOrZero | None = 300.0,
    seed: Seed = 0,
    device: Device = "auto",
    revision: str | None = None,
    token: str | None = None,
    on_progress: Callable[[str], None] | None = None,
) -> Comparison:
    """Compare the hidden states of an encoder with its teacher's, source by source.

    A pruned encoder imitates its teacher best on the kind of audio that it was pruned on. This function shows where it
    deviates, without a downstream task: by the error of the states as they are, and by the error that remains after the
    best linear map, as a head could apply it. The map is fitted on other clips than it is measured on. Silence does not
    count: neither clips nor single frames without sound.

    Args:
        model: encoder to measure: usually a directory written by `slimvox prune`; for other models see `teacher`. In
            Python also an encoder, or a model of `transformers` with an encoder.
        audio: audio sources, each measured separately: files, folders, shards (.tar), lists (.txt), manifests (.tsv,
            .csv, .jsonl), URLs of them, or Hugging Face data sets (hf:NAME, hf:NAME:CONFIGURATION:SPLIT, .parquet, a
            save_to_disk folder). In Python also a loaded `datasets.Dataset`.
        teacher: encoder to compare with; by default, the teacher recorded in `model`.
        seconds: seconds of audio per source, in randomly drawn clips; at most the first 30 s of a clip are used; 0
            means all of it. In Python also None.
        seed: random seed for drawing clips.
        device: device to run on; auto selects a GPU if there is one.
        revision: branch, tag or commit of `model` on the Hugging Face hub; the same as MODEL@REVISION.
        token: access token for the hub; by default the one in HF_TOKEN, or the one that `hf auth login` stored.
        on_progress: called with the name of what is being measured.

    Raises:
        SlimvoxError: for a model, teacher or audio that does not exist or cannot be used, and two encoders whose hidden
            states differ in number, width or rate.
        NotFiniteError: if a hidden state is NaN or infinite.
    """
    sources = as_sources(audio)
    where = find_device(device)
    with hub_token(token):
        student = _loaded(at_revision(model, revision))
        dense = _loaded(_teacher_of(student) if teacher is None else teacher)
    _check_alike(student, dense)
    compared = []
    with evaluating(student.encoder, where), evaluating(dense.encoder, where):
        for source in sources:
            if on_progress is not None:
                on_progress(_name(source))
            compared.append(_compare(student, dense, source, seconds or None, seed))
    return Comparison(model=student.name, teacher=dense.name, sources=tuple(compared))


@dataclass(frozen=True, kw_only=True)
class _Named:
    """An encoder that was passed in rather than loaded."""

    name: str
    encoder: SpeechEncoder
    teacher: None = None


def _loaded(model: Model) -> LoadedModel | _Named:
    if not isinstance(model, str | os.PathLike):
        return _Named(name=name_of(model), encoder=encoder_of(model))
    return load_model(model)


def _compare(
    student: LoadedModel | _Named,
    dense: LoadedModel | _Named,
    source: AudioInput,
    seconds: float | None,
    seed: int,
) -> SourceComparison:
    anatomies = [each.encoder.anatomy for each in (student, dense)]
    shortest = max(each.receptive_field + (FEWEST_FRAMES - 1) * each.hop for each in anatomies)
    skips = SkipCounter()
    scan = index_audio([source], min_seconds=shortest / SAMPLE_RATE_HZ, skips=skips)
    windows = [each.most_samples / SAMPLE_RATE_HZ for each in anatomies if each.most_samples is not None]
    longest = min([LONGEST_SECONDS, *windows])
    waveforms = _Waveforms(
        list(_drawn(scan.clips, seconds, seed, longest)), dense.encoder.anatomy, shortest, longest, skips
    )
    distances = hidden_state_distances(
        dense.encoder, student.encoder, waveforms, names=(dense.name, student.name), mapped=True
    )
    if distances is None:
        raise SlimvoxError(f"{_name(source)}: none of the audio can be used: {skips.summary()}")
    return SourceComparison(
        source=_name(source), clips=distances.clips, distances=distances, skipped=skips.counts
    )


def _name(source: AudioInput) -> str:
    """Name of a source: its path as given, because the last parts of two paths may be the same."""
    return printable(str(source)) if isinstance(source, (str, Path)) else source_name(source)


def _drawn(
    clips: Sequence[AudioClip], seconds: float | None, seed: int, longest: float
) -> Iterator[AudioClip]:
    """Clips in random order up to the wanted duration; all clips in order if it is None."""
    if seconds is None:
        yield from clips
        return
    for index in np.random.default_rng(seed).permutation(len(clips)).tolist():
        if seconds <= 0:
            return
        yield clips[index]
        seconds -= min(clips[index].seconds, longest)


@dataclass
class _Waveforms:
    """Each clip as (1, samples); clips that cannot be decoded or contain no sound are left out."""

    clips: Sequence[AudioClip]
    anatomy: EncoderAnatomy
    """Anatomy of the teacher, which determines the frames."""
    shortest: int
    """Number of samples."""
    longest: float
    """Seconds of a clip that are used."""
    skips: SkipCounter

    def __iter__(self) -> Iterator[Tensor]:
        for clip in self.clips:
            seconds = min(clip.seconds, self.longest)
            try:
                samples = read_audio(
                    clip.path, offset_seconds=clip.offset_seconds, seconds=seconds, channel=clip.channel
                )
            except UnreadableAudioError as error:
                self.skips.add(clip.path, error.reason, error.detail)
                continue
            if len(samples) < self.shortest:
                continue
            waveform = torch.from_numpy(samples)[None]
            if int(frames_with_sound(waveform, self.anatomy).sum()) < FEWEST_FRAMES:
                self.skips.add(clip.path, "silent", f"fewer than {FEWEST_FRAMES} of its frames hold sound")
                continue
            yield waveform


def _teacher_of(model: LoadedModel | _Named) -> str:
    """The teacher that a slimvox directory names, if it is enough to load it."""
    teacher = model.teacher
    if teacher is None or not teacher["name"]:
        raise SlimvoxError(f"{model.name} does not record a teacher; name one with --teacher")
    name = str(teacher["name"])
    # The directory records only the last part of a local path; a hub id has an owner.
    if name != EMBEDDED and "/" not in name and not Path(name).is_dir():
        raise SlimvoxError(
            f"{model.name} was pruned from `{name}`, which is not in this folder; name it with --teacher"
        )
    return name


def _check_alike(student: LoadedModel | _Named, dense: LoadedModel | _Named) -> None:
    first, second = student.encoder.anatomy, dense.encoder.anatomy
    for what, student_size, dense_size in (
        ("hidden states", len(first.layers) + 1, len(second.layers) + 1),
        ("dimensions", first.width, second.width),
        ("samples a frame", first.hop, second.hop),
    ):
        if student_size != dense_size:
            raise SlimvoxError(
                f"{student.name} has {student_size} {what}, but {dense.name} has {dense_size}: they cannot be compared"
            )
