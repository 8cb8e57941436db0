"""Chunks of `slimvox encode`: every frame of a recording is in one of them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from models import config
from slimvox.checkpoint.transformers_config import anatomy_from_config
from slimvox.encoding.chunks import cut_chunks, plan_chunks

ANATOMY = anatomy_from_config(config("wavlm").to_dict(), "test", normalize_waveform=False)


@pytest.mark.parametrize("overlap", [0, 1, 5, 8, 29])
def test_chunks_cover_every_frame_once(overlap: int) -> None:
    hop, field = ANATOMY.hop, ANATOMY.receptive_field
    samples = 30 * hop + field - hop + 7
    plan = plan_chunks(ANATOMY, chunk_seconds=samples / 16_000, overlap_seconds=overlap * hop / 16_000)
    assert (plan.samples, plan.frames, plan.overlap) == (samples, 30, overlap)
    edges = [
        samples + k * plan.step * hop + rest for k in range(3) for rest in (0, overlap * hop, hop, field)
    ]
    lengths = {0, 1, field - 1, field, *(edge + change for edge in edges for change in (-1, 0, 1, hop - 1))}
    for length in sorted(lengths):
        total = np.arange(length, dtype=np.float32)
        got: list[int] = []
        for chunk in cut_chunks(iter(np.array_split(total, 7)), plan):
            assert field <= len(chunk.waveform) <= plan.longest
            start = int(chunk.waveform[0])
            assert start % hop == 0
            frames = range(start // hop, start // hop + ANATOMY.frames(len(chunk.waveform)))
            got += frames[chunk.first : chunk.end]
            if length <= samples:
                assert len(chunk.waveform) == length
        assert got == list(range(ANATOMY.frames(length))), length


def test_chunks_of_a_stream_are_cut_before_it_is_read_to_its_end() -> None:
    plan = plan_chunks(ANATOMY, chunk_seconds=0.1, overlap_seconds=0.02)
    endless = itertools.repeat(np.zeros(100, dtype=np.float32))
    chunks = itertools.islice(cut_chunks(endless, plan), 5)
    assert [len(chunk.waveform) for chunk in chunks] == [1600] * 5
