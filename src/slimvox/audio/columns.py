"""The column names of tables of audio: those of the file, of a stretch of it, and the units of times.

All readers of tables take their columns from here. A column that selects audio in a way that is not understood is an
error, since ignoring it would use other audio than the table names.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from slimvox.util.errors import ColumnError

Row = Mapping[str, Any]
"""Values by normalised column name."""

PATH_COLUMNS = (
    *("path", "file", "audio", "audio_filepath", "filename", "file_name", "audio_path", "wav"),
    *("wav_path", "wav_filename", "wav_filepath", "audio_file", "filepath", "file_path", "wav_file"),
)
ID_COLUMN = "id"
CHANNEL_COLUMNS = ("channel", "channel_selector", "channel_id")

MAX_SECONDS = 100_000.0
"""Maximum time in seconds, more than a day: larger numbers must be samples or milliseconds."""
_TOLERANCE_SECONDS = 0.05
"""Maximum difference between columns that give the same time; their values are rounded."""
_TOLERANCE = 0.01

Quantity = Literal["start", "end", "duration", "length"]
"""`length` is a size whose unit is not known, such as `num_samples`: for a whole file it adds no information."""

_WORDS: Mapping[str, Quantity] = {
    **dict.fromkeys(("start", "begin", "onset", "offset", "starttime", "starts"), "start"),
    **dict.fromkeys(("end", "stop", "endtime", "ends"), "end"),
    **dict.fromkeys(("duration", "dur", "durations"), "duration"),
    **dict.fromkeys(("length", "len"), "length"),
}
_SECONDS_PER_UNIT: Mapping[str, float | None] = {
    **dict.fromkeys(("seconds", "second", "secs", "sec", "s"), 1.0),
    **dict.fromkeys(("milliseconds", "millisecond", "msecs", "msec", "ms", "millis"), 1e-3),
    **dict.fromkeys(("samples", "sample", "frames", "frame", "smp"), None),
}
"""Seconds per unit; None if it depends on the sample rate."""
_SIZES = frozenset(("seconds", "secs", "sec", "milliseconds", "msecs", "samples", "frames"))
"""Units that mean a size if no other word is in the name; `s` or `sample` may mean anything."""
_FILLERS = frozenset(
    (
        "time",
        "audio",
        "segment",
        "seg",
        "utterance",
        "utt",
        "clip",
        "speech",
        "file",
        "t",
        "num",
        "n",
        "in",
        "at",
    )
)


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeColumn:
    """Meaning of a column of times: its quantity and its unit."""

    quantity: Quantity
    seconds_per_unit: float | None
    """Seconds per unit of the column; None if the unit is not known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stretch:
    """Part of a file that a row selects."""

    offset_seconds: float = 0.0
    seconds: float | None = None
    """Duration in seconds; None to the end of the file."""
    end_seconds: float | None = None
    """The end as given, or offset plus duration; None for the end of the file."""
    channel: int | None = None
    """Channel, counted from 0; None for all."""


def normalized(name: str | None) -> str:
    """A column name in the form used in rows."""
    return (name or "").strip().lower()


@lru_cache(maxsize=4096)
def time_column(name: str) -> TimeColumn | None:
    """Return the meaning of a column of times by its name (in lower case); None for all other columns.

    A name counts if it consists only of one word for a time, a unit, and words such as `time` or `audio`:
    `start`, `end_seconds`, `segment_start_ms`, `duration`, `num_samples`, but not `start_word`.
    """
    words = [word for word in re.split(r"[\W_]+", name) if word]
    quantities = [_WORDS[word] for word in words if word in _WORDS]
    units = [word for word in words if word in _SECONDS_PER_UNIT]
    if len(quantities) > 1 or len(units) > 1 or len(quantities) + len(units) == 0:
        return None
    if not {*words} <= {*_WORDS, *_SECONDS_PER_UNIT, *_FILLERS} or not (quantities or units[0] in _SIZES):
        return None
    seconds_per_unit = _SECONDS_PER_UNIT[units[0]] if units else 1.0
    if quantities and quantities[0] != "length":
        return TimeColumn(quantity=quantities[0], seconds_per_unit=seconds_per_unit)
    # A length without a start or an end: `seconds`, `length_ms`, `num_samples`, `length`.
    if units and seconds_per_unit is not None:
        return TimeColumn(quantity="duration", seconds_per_unit=seconds_per_unit)
    return TimeColumn(quantity="length", seconds_per_unit=None)


def check_columns(columns: Iterable[str], where: str) -> None:
    """Check that a table has no two columns of one name, and one that names a file.

    Raises:
        ColumnError: otherwise, naming the columns.
    """
    columns = list(columns)
    twice = sorted({name for name in columns if name and columns.count(name) > 1})
    if twice:
        raise ColumnError(f"{where} must have each column once, but has `{twice[0]}` twice.")
    if not any(name in columns for name in (*PATH_COLUMNS, ID_COLUMN)):
        raise ColumnError(
            f"{where} must have a column that names the audio file ({', '.join(PATH_COLUMNS)} or {ID_COLUMN}), "
            f"but has {', '.join(name for name in columns if name) or 'none'} instead."
        )


def file_of(row: Row, where: str) -> str | None:
    """The value of the column that names the file; None if there is none.

    Raises:
        ColumnError: it is not text.
    """
    for column in PATH_COLUMNS:
        value = _filled(row.get(column))
        if value is None:
            continue
        if not isinstance(value, str):
            raise ColumnError(
                f"`{column}` in {where} must be the path of a file, but is {short(value)} instead."
            )
        return value
    return None


def stretch_of(row: Row, where: str) -> Stretch:
    """Read the part of its file that a row selects.

    Start, end and duration are in seconds, or in milliseconds if the name of the column says so. If several columns
    give the same quantity, they must agree.

    Raises:
        ColumnError: for values that are not times, columns that contradict each other, and columns whose unit is
            not known, such as `start_sample`.
    """
    has_onset = any("onset" in column for column in row)
    times: dict[Quantity, tuple[str, float]] = {}
    length: str | None = None
    for column, raw in row.items():
        kind, value = time_column(column), _filled(raw)
        if kind is None or value is None:
            continue
        if kind.quantity == "length":
            length = column
            continue
        # `onset` and `offset` are where a sound begins and ends; `offset` alone is where it begins.
        quantity: Quantity = "end" if has_onset and "offset" in column else kind.quantity
        if kind.seconds_per_unit is None:
            if quantity == "duration":
                length = column
                continue
            if _is_zero(value) and quantity == "start":
                continue
            raise ColumnError(
                f"`{column}` in {where} counts samples or frames: give the time in seconds instead, in columns such as "
                "`start_seconds` and `end_seconds`."
            )
        seconds = _seconds(value, column, where, kind.seconds_per_unit)
        if quantity in times and not _agree(times[quantity][1], seconds):
            raise _contradiction(where, (times[quantity][0], column))
        times.setdefault(quantity, (column, seconds))
    return _combined(times, length, row, where)


def channel_of(row: Row, where: str) -> int | None:
    """Read the channel of its file that a row selects; None for all channels.

    Raises:
        ColumnError: it is not a whole number from 0 up.
    """
    for column in CHANNEL_COLUMNS:
        value = _filled(row.get(column))
        if value is None or value == "average":
            continue
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        text = str(value)
        if isinstance(value, bool) or re.fullmatch(r"\d{1,4}", text, re.ASCII) is None:
            raise ColumnError(
                f"`{column}` in {where} must be the number of one channel, counted from 0, but is "
                f"{short(value)} instead."
            )
        return int(text)
    return None


def short(value: object) -> str:
    """A value as quoted in messages."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _combined(
    times: Mapping[Quantity, tuple[str, float]], length: str | None, row: Row, where: str
) -> Stretch:
    start_column, start = times.get("start", ("", 0.0))
    end_column, end = times.get("end", ("", math.nan))
    duration_column, duration = times.get("duration", ("", math.nan))
    if (
        "start" in times
        and "end" not in times
        and "duration" not in times
        and length is not None
        and start > 0
    ):
        raise ColumnError(
            f"The unit of `{length}` in {where} is not known, so the end of the audio is not known either: give "
            "`duration_seconds` or `end_seconds`."
        )
    if "end" in times:
        if end < start:
            raise ColumnError(
                f"`{end_column}` in {where} must not be before the start at {start:g} s, but is {end:g} s instead."
            )
        # A duration beside an end is either the length of the segment or that of the whole file.
        if "duration" in times and not _agree(end - start, duration) and end > duration + _TOLERANCE_SECONDS:
            raise _contradiction(
                where, [name for name in (start_column, end_column, duration_column) if name]
            )
        duration = end - start
    return Stretch(
        offset_seconds=start,
        seconds=None if math.isnan(duration) else duration,
        end_seconds=end if "end" in times else None if math.isnan(duration) else start + duration,
        channel=channel_of(row, where),
    )


def _contradiction(where: str, columns: Iterable[str]) -> ColumnError:
    names = ", ".join(f"`{name}`" for name in columns)
    return ColumnError(
        f"The columns {names} contradict each other in {where}: all must be in seconds, or remove those that do not "
        "say which audio is meant."
    )


def _agree(a: float, b: float) -> bool:
    return abs(a - b) <= max(_TOLERANCE_SECONDS, _TOLERANCE * max(abs(a), abs(b)))


def _filled(value: Any) -> Any:
    """A value, stripped if it is text; None if it is empty."""
    if isinstance(value, str):
        value = value.strip()
    return None if value is None or value == "" else value


def _is_zero(value: Any) -> bool:
    try:
        return not isinstance(value, bool) and float(value) == 0.0
    except (TypeError, ValueError, OverflowError):
        return False


def _seconds(value: Any, column: str, where: str, seconds_per_unit: float) -> float:
    try:
        number = math.nan if isinstance(value, bool) or "_" in str(value) else float(value) * seconds_per_unit
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    unit = "seconds" if seconds_per_unit == 1.0 else "milliseconds"
    if not 0.0 <= number < math.inf:
        raise ColumnError(
            f"`{column}` in {where} must be a number of {unit} from 0 up, but is {short(value)} instead."
        )
    if number > MAX_SECONDS:
        raise ColumnError(
            f"`{column}` in {where} must be a number of {unit}, but {short(value)} would be "
            f"{number / 3600:.3g} hours: if it counts samples, give seconds instead."
        )
    return number
