"""Cuts and recordings as lhotse writes them, one JSON object per line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from slimvox.audio.columns import PATH_COLUMNS, Row, Stretch, short, stretch_of
from slimvox.audio.remote import Place
from slimvox.audio.sources import AudioSource, located
from slimvox.util.errors import SlimvoxError

_CUT = "MonoCut"
_MANY_CHANNELS_CUT = "MultiCut"


def is_lhotse(row: Row) -> bool:
    """True if a row is a cut, a recording or a supervision of lhotse."""
    if any(column in row for column in PATH_COLUMNS):
        return False
    return (
        isinstance(row.get("recording"), Mapping)
        or isinstance(row.get("sources"), list)
        or "recording_id" in row
        or str(row.get("type", "")).endswith("Cut")
    )


def lhotse_source(row: Row, where: str, folder: Place) -> AudioSource:
    """The audio of a cut of one recording, or of a recording.

    Args:
        row: the JSON object.
        where: place of the row, for errors.
        folder: folder of the manifest; paths are relative to it, or to the current folder.

    Raises:
        SlimvoxError: for rows that do not name a single file: supervisions, mixed cuts, audio that a command makes or
            that is changed when it is loaded, several channels out of more.
    """
    kind = str(row.get("type") or "")
    if kind.endswith("Cut") and kind not in (_CUT, _MANY_CHANNELS_CUT):
        raise SlimvoxError(
            f"The {kind} of lhotse in {where} is not audio of one file: only MonoCut and MultiCut are read."
        )
    recording = row.get("recording") if "sources" not in row else row
    if not isinstance(recording, Mapping):
        raise SlimvoxError(
            f"The row in {where} names a recording but no file: give lhotse's cuts or recordings instead."
        )
    if recording.get("transforms"):
        raise SlimvoxError(
            f"The recording in {where} has `transforms` of lhotse, which are not applied: save the changed audio, and "
            "give that."
        )
    sources = recording.get("sources")
    source = sources[0] if isinstance(sources, list) and len(sources) == 1 else None
    if (
        not isinstance(source, Mapping)
        or source.get("type") != "file"
        or not isinstance(source.get("source"), str)
    ):
        if isinstance(source, Mapping) and source.get("type") == "shar":
            raise SlimvoxError(
                f"The recording in {where} lies in an archive of lhotse Shar: give the folder of its recording.*.tar."
            )
        raise SlimvoxError(
            f"The recording in {where} must have one source of type `file`, but has {short(sources)} instead."
        )
    stretch = Stretch() if recording is row else _stretch(row, recording, where)
    return AudioSource(
        path=located(folder, source["source"]),
        offset_seconds=stretch.offset_seconds,
        seconds=stretch.seconds,
        channel=stretch.channel,
    )


def _stretch(row: Row, recording: Mapping[str, Any], where: str) -> Stretch:
    asked = {name: row[name] for name in ("start", "duration", "channel") if name in row}
    channels = asked.get("channel")
    everything = recording.get("channel_ids") or recording["sources"][0].get("channels")
    if channels is not None and everything in ([channels], channels):
        asked.pop("channel")
    return stretch_of(asked, where)
