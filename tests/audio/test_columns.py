"""Columns of a table: which stretch of which channel of a file a row means, or which column is not understood."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slimvox.audio.columns import stretch_of, time_column
from slimvox.util.errors import SlimvoxError


def stretch(**row: Any) -> tuple[float, float | None, int | None]:
    found = stretch_of(row, "here")
    return found.offset_seconds, found.seconds, found.channel


@pytest.mark.parametrize(
    ("row", "wanted"),
    [
        ({}, (0.0, None, None)),
        ({"start": 1.5}, (1.5, None, None)),
        ({"offset": "1.5", "duration": "2"}, (1.5, 2.0, None)),
        ({"start": 10.5, "end": 15}, (10.5, 4.5, None)),
        ({"start_seconds": "10.5", "end_seconds": "15.0"}, (10.5, 4.5, None)),
        ({"start": 10.5, "stop": 15}, (10.5, 4.5, None)),
        ({"start_time": 1, "end_time": 2}, (1.0, 1.0, None)),
        ({"segment_start": 1, "segment_end": 2}, (1.0, 1.0, None)),
        ({"start_ms": 1500, "end_ms": "2500"}, (1.5, 1.0, None)),
        ({"begin": 1, "duration_ms": 500}, (1.0, 0.5, None)),
        ({"onset": 3, "offset": 5}, (3.0, 2.0, None)),
        ({"end": 4.5}, (0.0, 4.5, None)),
        ({"start": 1, "end": 3, "duration": 2.004}, (1.0, 2.0, None)),
        # The duration of the whole file is no contradiction, nor is its length in samples.
        ({"start": 1, "end": 3, "duration": 10}, (1.0, 2.0, None)),
        ({"start": 1, "end": 3, "num_samples": 160_000}, (1.0, 2.0, None)),
        ({"duration": 3.2, "length": 51_200, "num_frames": 320}, (0.0, 3.2, None)),
        ({"frame_offset": 0, "num_frames": 320}, (0.0, None, None)),
        ({"start": "", "end": None, "duration": " "}, (0.0, None, None)),
        ({"channel": 1}, (0.0, None, 1)),
        ({"channel": "0"}, (0.0, None, 0)),
        ({"channel_selector": "average"}, (0.0, None, None)),
        # Not times, whatever the names begin with.
        (
            {"start_word": "the", "end_of_turn": "yes", "length_of_text": 3, "s": "A", "sample": "x"},
            (0.0, None, None),
        ),
    ],
)
def test_columns_that_are_understood(
    row: dict[str, Any], wanted: tuple[float, float | None, int | None]
) -> None:
    offset, seconds, channel = stretch(**row)
    assert (offset, channel) == (wanted[0], wanted[2])
    assert seconds == (wanted[1] if wanted[1] is None else pytest.approx(wanted[1]))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"start_sample": 16_000, "end_sample": 32_000}, "`start_sample` in here counts samples"),
        ({"frame_offset": 16_000}, "`frame_offset` in here counts samples"),
        ({"start": 1.5, "num_samples": 16_000}, "The unit of `num_samples` in here is not known"),
        ({"start": 1.5, "length": 3}, "The unit of `length` in here is not known"),
        (
            {"start": 160_000, "stop": 240_000},
            "`start` in here must be a number of seconds, but 160000 would be 44.4 h",
        ),
        ({"duration": 1e308}, r"`duration` .* but 1e\+308 would be"),
        (
            {"start": 48_000, "stop": 96_000, "duration": 8.1},
            "`start`, `stop`, `duration` contradict each other in here",
        ),
        ({"start": 1, "offset": 2}, "`start`, `offset` contradict"),
        ({"duration": 3, "seconds": 5}, "`duration`, `seconds` contradict"),
        ({"start": 3, "end": 2}, "`end` in here must not be before the start at 3 s, but is 2 s"),
        ({"start": -1}, "`start` in here must be a number of seconds from 0 up, but is -1"),
        ({"start": "00:00:03"}, "`start` in here must be a number of seconds from 0 up, but is '00:00:03'"),
        ({"end_ms": "x"}, "`end_ms` in here must be a number of milliseconds"),
        ({"duration": True}, "`duration` in here must be a number of seconds"),
        ({"duration": [1]}, "`duration` in here must be a number of seconds"),
        ({"duration": "1_0"}, "`duration` in here must be a number of seconds"),
        ({"duration": float("nan")}, "`duration` in here must be a number of seconds"),
        (
            {"channel": "left"},
            "`channel` in here must be the number of one channel, counted from 0, but is 'left'",
        ),
        ({"channel": -1}, "`channel` in here must be the number"),
        ({"channel": [0, 1]}, "`channel` in here must be the number"),
        ({"channel": 17_000}, "`channel` in here must be the number"),
    ],
)
def test_columns_that_are_not_understood_are_named(row: dict[str, Any], message: str) -> None:
    with pytest.raises(SlimvoxError, match=message):
        stretch(**row)


@given(
    start=st.floats(0, 5000),
    seconds=st.floats(0.01, 5000),
    starts=st.sampled_from(["start", "start_seconds", "offset", "begin_time", "start_ms", "utt_start_sec"]),
    ends=st.sampled_from(
        ["end", "stop", "end_seconds", "end_time", "end_ms", "duration", "dur_ms", "seconds"]
    ),
)
def test_a_stretch_is_the_same_by_whatever_columns(
    start: float, seconds: float, starts: str, ends: str
) -> None:
    kind = time_column(ends)
    assert kind is not None
    value = start + seconds if kind.quantity == "end" else seconds
    row = {starts: start * (1000 if "ms" in starts else 1), ends: value * (1000 if "ms" in ends else 1)}
    found = stretch(**row)
    assert found[:2] == (pytest.approx(start), pytest.approx(seconds, abs=1e-6))
