"""Batches of waveforms."""

from __future__ import annotations

import itertools
import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from audio.audio_files import tone, write, write_tones
from slimvox.audio import (
    AudioBatch,
    AudioBatches,
    AudioClip,
    BatchPlan,
    crops,
    find_audio,
    loader,
    scan_audio,
)
from slimvox.util.errors import SlimvoxError

LENGTHS = [1.0, 1.2, 1.4, 2.0, 2.2, 3.0, 3.1, 4.5, 7.0]


def clips_of(folder: Path) -> tuple[AudioClip, ...]:
    return scan_audio(find_audio([folder]), min_seconds=1.0).clips


def plan_of(clips: tuple[AudioClip, ...], budget: float = 5.0) -> BatchPlan:
    seconds = [clip.seconds for clip in clips]
    return BatchPlan(seconds, seconds_per_batch=budget, min_seconds=1.0, max_seconds=3.0, seed=7)


def take(clips: tuple[AudioClip, ...], count: int, **settings: Any) -> list[AudioBatch]:
    with AudioBatches(clips, settings.pop("plan", plan_of(clips)), **settings) as batches:
        return list(itertools.islice(batches, count))


def assert_same(one: list[AudioBatch], other: list[AudioBatch]) -> None:
    assert [batch.step for batch in one] == [batch.step for batch in other]
    for left, right in zip(one, other, strict=True):
        assert torch.equal(left.waveforms, right.waveforms)


def test_batches_are_what_the_plan_says(tmp_path: Path) -> None:
    write_tones(tmp_path, LENGTHS)
    clips = clips_of(tmp_path)
    plan = plan_of(clips)
    for step, batch in enumerate(take(clips, 12)):
        specs = plan.batch(step)
        assert batch.waveforms.shape == (len(specs), specs[0].samples)
        assert batch.waveforms.dtype == torch.float32
        assert batch.seconds == batch.waveforms.numel() / 16_000
        assert batch.step == step
        for row, spec in zip(batch.waveforms, specs, strict=True):
            wave = tone(clips[spec.clip].seconds, pitch_hz=200.0 + 20 * spec.clip)
            np.testing.assert_allclose(row, wave[spec.start : spec.start + spec.samples], atol=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        {"workers": 1, "prefetch": 1},
        {"workers": 3, "prefetch": 7},
        {"cache_bytes": 0},
        {"cache_bytes": 200_000},
    ],
)
def test_batches_do_not_depend_on_how_they_are_loaded(tmp_path: Path, settings: dict[str, Any]) -> None:
    write_tones(tmp_path, LENGTHS)
    (tmp_path / "005.wav").write_bytes((tmp_path / "000.wav").read_bytes())
    clips = clips_of(tmp_path)
    (tmp_path / "004.wav").write_bytes(b"gone bad")
    write(tmp_path / "006.wav", np.zeros(50_000))
    straight = take(clips, 20)
    assert_same(take(clips, 20, **settings), straight)
    assert_same(take(clips, 7, start=13, **settings), straight[13:])


def test_processes_share_each_batch_out_clip_by_clip(tmp_path: Path) -> None:
    write_tones(tmp_path, LENGTHS)
    clips = clips_of(tmp_path)
    together = [take(clips, 12, process=process, processes=3) for process in range(3)]
    sizes = set()
    for whole, *shares in zip(take(clips, 12), *together, strict=True):
        assert whole.slots == tuple(range(whole.planned))
        dealt = {slot: row for each in shares for slot, row in zip(each.slots, each.waveforms, strict=True)}
        assert sorted(dealt) == list(whole.slots)
        for slot, row in enumerate(whole.waveforms):
            assert torch.equal(dealt[slot], row)
        counts = [len(each.waveforms) for each in shares]
        assert max(counts) - min(counts) <= 1
        sizes.update(counts)
    assert {0, 1} <= sizes  # a batch of fewer clips than processes leaves some without


def test_processes_agree_on_a_batch_whose_clips_are_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process whose share is unusable has none of that batch; it takes another one only where all do."""
    monkeypatch.setattr(loader, "REPLACEMENTS_PER_CROP", 0)
    paths = write_tones(tmp_path, [1.0, 1.0, 2.0, 2.0, 3.0, 3.0])
    clips = clips_of(tmp_path)
    for path in (paths[2], paths[4], paths[5]):
        path.unlink()
    plan = plan_of(clips, budget=6.0)
    shares = [take(clips, 12, plan=plan, process=process, processes=2) for process in range(2)]
    without = 0
    for whole, *parts in zip(take(clips, 12, plan=plan), *shares, strict=True):
        assert {part.waveforms.shape[1] for part in parts} == {whole.waveforms.shape[1]}
        assert sorted(slot for part in parts for slot in part.slots) == list(whole.slots)
        without += sum(not part.slots for part in parts)
    assert without


def test_long_clips_are_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "x.wav", np.random.default_rng(0).normal(0, 0.1, (44_100 * 20, 2)), 44_100)
    clips = clips_of(tmp_path)
    whole = take(clips, 5)
    monkeypatch.setattr(crops, "WHOLE_CLIP_SECONDS", 5.0)
    for left, right in zip(whole, take(clips, 5), strict=True):
        assert left.waveforms.shape == right.waveforms.shape
        # A part starts at the nearest sample of the file's own rate, up to half of one beside the crop.
        inner = slice(200, -200)
        for one, other in zip(left.waveforms, right.waveforms, strict=True):
            assert np.corrcoef(one[inner], other[inner])[0, 1] > 0.9


def test_unusable_files_are_replaced_counted_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    paths = write_tones(tmp_path, LENGTHS)
    clips = clips_of(tmp_path)
    paths[0].write_bytes(b"not audio any more")
    paths[1].unlink()
    write(paths[2], np.zeros(round(1.4 * 16_000)))
    write(paths[3], tone(0.5))
    plan = plan_of(clips)
    with AudioBatches(clips, plan) as batches:
        loaded = list(itertools.islice(batches, 3 * plan.batches_per_epoch))
    assert batches.skips.counts == {"unreadable": 1, "missing": 1, "silent": 1, "truncated": 1}
    for path in paths[:4]:
        assert caplog.text.count(str(path)) == 1
    for batch in loaded:
        assert (batch.waveforms.abs().amax(dim=1) > 0.1).all()
        assert batch.waveforms.shape[0] <= len(plan.batch(batch.step))


def test_silent_part_of_a_good_file_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "x.wav", np.concatenate([np.zeros(16_000 * 7), tone(7.0)]))
    clips = clips_of(tmp_path)
    with AudioBatches(clips, plan_of(clips)) as batches:
        for batch in itertools.islice(batches, 10):
            assert batch.waveforms.abs().amax() > 0.1
    assert batches.skips.counts == {"silent part": 1}


def test_a_few_missing_samples_are_no_damage(tmp_path: Path) -> None:
    path = write(tmp_path / "x.wav", tone(2.0))
    clips = (AudioClip(path=path, offset_seconds=0.0, seconds=2.01),)
    (batch,) = take(clips, 1)
    assert batch.waveforms.shape == (1, 32_160)
    assert batch.waveforms[0, 32_000:].abs().max() == 0.0


def test_the_only_clip_of_its_length_gone_bad_does_not_end_the_run(tmp_path: Path) -> None:
    paths = write_tones(tmp_path, [1.0, 1.0, 3.0])
    clips = clips_of(tmp_path)
    paths[2].unlink()
    for batch in take(clips, 6):
        assert batch.waveforms.shape[1] == 16_000


def test_all_bad_ends_with_a_clear_word(tmp_path: Path) -> None:
    paths = write_tones(tmp_path, LENGTHS)
    clips = clips_of(tmp_path)
    for path in paths:
        path.unlink()
    with AudioBatches(clips, plan_of(clips)) as batches:
        with pytest.raises(SlimvoxError, match=r"No usable audio .* missing, such as `.*\.wav`"):
            next(batches)
        with pytest.raises(StopIteration):
            next(batches)


def test_errors_of_the_threads_reach_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tones(tmp_path, LENGTHS)
    clips = clips_of(tmp_path)

    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(crops, "read_audio", broken)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        take(clips, 1)


def test_closing_stops_the_threads(tmp_path: Path) -> None:
    write_tones(tmp_path, LENGTHS)
    clips = clips_of(tmp_path)
    batches = AudioBatches(clips, plan_of(clips), workers=3)
    next(batches)
    batches.close()
    batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("slimvox-")]
    assert list(batches) == []


@pytest.mark.parametrize(
    "settings", [{"start": -1}, {"process": 2, "processes": 2}, {"workers": 0}, {"prefetch": 0}]
)
def test_settings_that_cannot_be(tmp_path: Path, settings: dict[str, int]) -> None:
    write_tones(tmp_path, [1.0])
    clips = clips_of(tmp_path)
    with pytest.raises(SlimvoxError, match=r"must be .*, but is"):
        AudioBatches(clips, plan_of(clips), **settings)


def test_waiting_is_told_with_its_share_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = [0.0]
    monkeypatch.setattr(loader.time, "monotonic", lambda: clock[0])
    waits = loader.Waits(3)

    def step(waiting: float, training: float) -> None:
        with waits:
            clock[0] += waiting
        clock[0] += training

    with caplog.at_level(logging.WARNING):
        step(50.0, 1.0)
        assert waits.share == 0.0
        for _ in range(100):
            step(0.01, 0.99)
        assert not caplog.records
        for _ in range(50):
            step(0.5, 0.5)
        assert waits.share == pytest.approx((1.0 + 25.0) / 151.0)
    (record,) = caplog.records
    assert "waited for audio for 17 % of the last 60 s: raise --workers above 3" in record.message
