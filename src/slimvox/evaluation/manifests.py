"""Manifests of labelled recordings: one table per task, a row per recording. A task names its reader of rows.

Every table is a TSV (or CSV) file with a header. These columns are read for every task:

    path            the file, relative to the data folder; several clips are joined by " + ", and each may be placed
                    at a time and scaled: `a.wav@0.5*0.8 + b.wav@2`
    id              unique name of the recording; where there is no such column, the path, followed by the stretch and
                    the channel if several rows have the same path: `a.wav [1.5-3.0]`
    split           train, dev or test; or the number of a fold, 1 to N: each fold is tested once, while the next one is
                    dev and the others train
    start_seconds   start of the clip in the file (optional)
    end_seconds     end of the clip in the file (optional)
    channel         channel of the file, counted from 0; if empty, the mean of all (optional)
    speaker         name of the speaker, whose clips confidence intervals resample together (optional)
    channel_seed    a whole number: the seed of a simulated acoustic channel, see `slimvox.evaluation.channel`; if
                    empty, the recording is not changed (optional)

The file, the stretch and the channel may have any of the names that `slimvox.audio.columns` knows. Further columns, by
reader:

    transcribed     text: phones, or words, separated by spaces
    labelled_set    label; or one column for each slot, named label_SLOT
    slots           text: words, those of a slot in brackets: `a [size: small] [drink: latte] please`
    verification    label: the speaker; trials are drawn from the dev and test rows
    conversations   turns: `A 0.00-1.52; B 1.10-3.00`
    searches        role: query or document; label: the query's term, or the document's terms separated by `|`
"""

from __future__ import annotations

import bisect
import itertools
import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from slimvox.audio.columns import MAX_SECONDS, PATH_COLUMNS, Stretch, file_of, normalized, stretch_of
from slimvox.audio.manifests import manifest_extension
from slimvox.audio.sources import read_text
from slimvox.audio.tables import read_rows
from slimvox.evaluation.examples import (
    SPLITS,
    Clip,
    ConversationExample,
    ExampleSet,
    LabelledExample,
    QuerySearch,
    Recording,
    Segment,
    SlotExample,
    Split,
    TranscribedExample,
    Trial,
    Turn,
    VerificationSet,
)
from slimvox.util.errors import SlimvoxError

Row = Mapping[str, str]
LABEL_PREFIX = "label_"
SEED_COLUMN = "channel_seed"
FEWEST_FOLDS = 3
MOST_TRIALS = 20_000
"""Maximum number of trials of each kind, per split."""

_CLIP = re.compile(r"^(?P<path>.+?)(?:@(?P<at>[\d.]+))?(?:\*(?P<gain>[\d.]+))?$")
_SLOT = re.compile(r"\[([^:\]\s]+):\s*([^\]]*)\]")
_TURN = re.compile(r"^(\S+)\s+([\d.]+)-([\d.]+)$")


def _column(name: str | None) -> str:
    """A column's normalised name; the part after `label_` is kept, as it is a name chosen by the user."""
    plain = normalized(name)
    if not plain.startswith(LABEL_PREFIX):
        return plain
    return LABEL_PREFIX + (name or "").strip()[len(LABEL_PREFIX) :]


class TaskTable:
    """Rows of a manifest, checked."""

    def __init__(self, manifest: Path, root: Path, task: str, *, fold: int = 1) -> None:
        if not manifest.is_file():
            raise SlimvoxError(f"{task}: there is no manifest {manifest}")
        self.columns, rows = read_rows(
            manifest, read_text(manifest), is_tsv=manifest_extension(manifest) != ".csv", name=_column
        )
        twice = [name for name in self.columns if name and self.columns.count(name) > 1]
        if twice:
            raise SlimvoxError(f"{manifest}: the column {twice[0]!r} occurs twice")
        self.manifest, self.root, self.task = manifest, root, task
        self.skipped: dict[str, int] = {}
        if not any(name in self.columns for name in PATH_COLUMNS):
            self.need("path", "split")
        self.need("split")
        self._rows = list(rows)
        self._uses = Counter(file_of(row, str(manifest)) for _, row in self._rows)
        numbers = {row["split"] for _, row in self._rows} - set(SPLITS)
        self.fold, self.folds = fold, len(numbers)
        """The fold that is tested, and the number of folds; 0 for a table with fixed splits."""
        given = sorted(int(each) for each in numbers if each.isascii() and each.isdecimal())
        if given and (given != list(range(1, len(numbers) + 1)) or len(given) < FEWEST_FOLDS):
            raise SlimvoxError(
                f"{manifest}: the folds in `split` must be numbered from 1 to N without gaps, with N at least"
                f" {FEWEST_FOLDS}, and each other `split` must be train, dev or test"
            )

    def need(self, *columns: str) -> None:
        """Raise SlimvoxError if a column is missing."""
        missing = [column for column in columns if column not in self.columns]
        if missing:
            raise SlimvoxError(
                f"{self.manifest}: there is no column {missing[0]!r}; {self.task} needs"
                f" {', '.join(dict.fromkeys(('path', 'split', *columns)))} in the first line"
            )

    def rows(self) -> Iterator[tuple[str, Row, Split, Recording]]:
        """Rows of the table, each with its position, split and recording.

        Raises:
            SlimvoxError: for a row that is not valid, and for two recordings with the same id.
        """
        first: dict[str, tuple[int, Recording]] = {}
        for line, row in self._rows:
            where = f"line {line} of {self.manifest}"
            recording = self._recording(row, where)
            earlier, same = first.setdefault(recording.id, (line, recording))
            if same != recording:
                raise SlimvoxError(
                    f"{where}: the recording of line {earlier} has the same id, {recording.id!r}; the column `id` must"
                    " have another one for each recording"
                )
            yield where, row, self._split(row, where), recording

    def skip(self, reason: str) -> None:
        """Count a row that is left out."""
        self.skipped[reason] = self.skipped.get(reason, 0) + 1

    def _split(self, row: Row, where: str) -> Split:
        text = row["split"]
        for split in SPLITS:
            if text == split:
                return split
        if not (text.isascii() and text.isdecimal()):
            raise SlimvoxError(
                f"{where}: `split` must be train, dev or test, or the number of a fold, but is {text!r} instead"
            )
        return {self.fold: SPLITS[2], self.fold % self.folds + 1: SPLITS[1]}.get(int(text), SPLITS[0])

    def _recording(self, row: Row, where: str) -> Recording:
        path = file_of(row, where)
        if path is None:
            raise SlimvoxError(f"{where}: `path` is empty")
        stretch = stretch_of(row, where)
        clips = []
        for part in path.split(" + "):
            found = _CLIP.match(part.strip())
            if found is None:
                raise SlimvoxError(f"{where}: there is an empty clip in `path`")
            clips.append(
                Clip(
                    path=self.root / found["path"],
                    start_seconds=stretch.offset_seconds,
                    end_seconds=stretch.end_seconds,
                    file_channel=stretch.channel,
                    at_seconds=_number(found["at"] or "0", "path", where),
                    gain=_number(found["gain"] or "1", "path", where),
                )
            )
        seed = row.get(SEED_COLUMN, "")
        if seed and not (seed.isascii() and seed.isdecimal()):
            raise SlimvoxError(f"{where}: `{SEED_COLUMN}` must be a whole number, but is {seed!r} instead")
        return Recording(
            id=row.get("id") or (path if self._uses[path] == 1 else _with_stretch(path, stretch)),
            clips=tuple(clips),
            channel=int(seed) if seed else None,
            speaker=row.get("speaker") or None,
        )


def _with_stretch(path: str, stretch: Stretch) -> str:
    """A path with the times and the channel of a stretch; the path alone for the whole file."""
    parts = []
    if stretch.offset_seconds or stretch.end_seconds is not None:
        parts.append(f"{stretch.offset_seconds}-{'' if stretch.end_seconds is None else stretch.end_seconds}")
    if stretch.channel is not None:
        parts.append(f"channel {stretch.channel}")
    return f"{path} [{', '.join(parts)}]" if parts else path


def transcribed(table: TaskTable) -> ExampleSet[TranscribedExample]:
    """Phones or words of each recording."""
    table.need("text")
    return ExampleSet(
        name=table.manifest.stem,
        examples=tuple(
            TranscribedExample(recording=recording, split=split, text=row["text"])
            for _, row, split, recording in table.rows()
        ),
    )


def labelled_set(table: TaskTable) -> ExampleSet[LabelledExample]:
    """One label of each recording, or one per slot."""
    columns = [name for name in table.columns if name == "label" or name.startswith(LABEL_PREFIX)]
    if not columns:
        table.need("label")
    examples = []
    for _, row, split, recording in table.rows():
        labels = tuple(row[column] for column in columns)
        # An empty slot is a value of its own where there are several; a single empty label is none.
        if len(labels) == 1 and not labels[0]:
            table.skip("no label")
            continue
        examples.append(LabelledExample(recording=recording, split=split, labels=labels))
    return ExampleSet(
        name=table.manifest.stem,
        examples=tuple(examples),
        label_names=tuple(column.removeprefix(LABEL_PREFIX) for column in columns),
        skipped=table.skipped,
    )


def slots(table: TaskTable) -> ExampleSet[SlotExample]:
    """Words of each recording, with those of slots tagged."""
    table.need("text")
    examples = []
    for where, row, split, recording in table.rows():
        examples.append(
            SlotExample(recording=recording, split=split, segments=parse_slots(row["text"], where))
        )
    return ExampleSet(name=table.manifest.stem, examples=tuple(examples))


def parse_slots(text: str, where: str) -> tuple[Segment, ...]:
    """Split tagged text such as ``a [size: small] coffee``.

    Raises:
        SlimvoxError: if brackets do not enclose a slot.
    """
    segments, end = [], 0
    for match in _SLOT.finditer(text):
        segments.append(Segment(text=" ".join(text[end : match.start()].split())))
        segments.append(Segment(text=" ".join(match[2].split()), slot=match[1]))
        end = match.end()
    segments.append(Segment(text=" ".join(text[end:].split())))
    if any("[" in segment.text or "]" in segment.text for segment in segments):
        raise SlimvoxError(f"{where}: slots must be written [slot: words], but `text` is {text!r} instead")
    return tuple(segment for segment in segments if segment.text)


def verification(table: TaskTable) -> VerificationSet:
    """Speakers, and trials drawn from the dev and test rows."""
    labelled = labelled_set(table)
    return verification_set(labelled)


def verification_set(labelled: ExampleSet[LabelledExample], *, seed: int = 0) -> VerificationSet:
    """Draw trials from the dev and test recordings: all pairs of the same speaker, and as many of two speakers."""
    draw = random.Random(seed)
    trials: list[Trial] = []
    splits: tuple[Split, ...] = ("dev", "test")
    for split in splits:
        members = [each for each in labelled.examples if each.split == split]
        pairs = _Pairs([each.labels[0] for each in members])
        same = draw.sample(pairs.same, min(len(pairs.same), MOST_TRIALS))
        numbers = draw.sample(range(pairs.different), min(pairs.different, len(same)))
        for a, b in (*same, *map(pairs.of_different, numbers)):
            first, second = members[a], members[b]
            trials.append(
                Trial(
                    first=first.recording.id,
                    second=second.recording.id,
                    same=first.labels[0] == second.labels[0],
                    split=split,
                )
            )
    return VerificationSet(
        name=labelled.name,
        examples=labelled.examples,
        label_names=labelled.label_names,
        skipped=labelled.skipped,
        recordings={each.recording.id: each.recording for each in labelled.examples if each.split != "train"},
        trials=tuple(trials),
    )


class _Pairs:
    """Pairs of places in a list of labels, in order; those of different labels are not listed, but found by number."""

    def __init__(self, labels: Sequence[str]) -> None:
        places: dict[str, list[int]] = {}
        for place, label in enumerate(labels):
            places.setdefault(label, []).append(place)
        later: list[list[int]] = [[] for _ in labels]
        for own in places.values():
            for index, place in enumerate(own):
                later[place] = own[index + 1 :]
        self.same = [(place, other) for place, others in enumerate(later) for other in others]
        counts = (len(labels) - 1 - place - len(others) for place, others in enumerate(later))
        self._later, self._before = later, [0, *itertools.accumulate(counts)]
        self.different = self._before[-1]

    def of_different(self, number: int) -> tuple[int, int]:
        """The pair of different labels of a number."""
        first = bisect.bisect_right(self._before, number) - 1
        second = first + 1 + number - self._before[first]
        for place in self._later[first]:
            second += place <= second
        return first, second


def conversations(table: TaskTable) -> ExampleSet[ConversationExample]:
    """Turns of the speakers in each recording."""
    table.need("turns")
    examples = []
    for where, row, split, recording in table.rows():
        turns = []
        for part in filter(None, (part.strip() for part in row["turns"].split(";"))):
            match = _TURN.match(part)
            times = match and [_number(match[group], "turns", where) for group in (2, 3)]
            if match is None or times is None or times[0] >= times[1]:
                raise SlimvoxError(f"{where}: a turn must be SPEAKER START-END, but is {part!r} instead")
            turns.append(Turn(speaker=match[1], start_seconds=times[0], end_seconds=times[1]))
        if not turns:
            table.skip("no turns")
            continue
        examples.append(ConversationExample(recording=recording, split=split, turns=tuple(turns)))
    return ExampleSet(name=table.manifest.stem, examples=tuple(examples), skipped=table.skipped)


def searches(table: TaskTable) -> ExampleSet[QuerySearch]:
    """Queries and documents of each split."""
    table.need("role", "label")
    found: dict[Split, dict[str, list[tuple[Recording, str]]]] = {}
    for where, row, split, recording in table.rows():
        if row["role"] not in ("query", "document"):
            raise SlimvoxError(f"{where}: `role` must be query or document, but is {row['role']!r} instead")
        if row["role"] == "query" and not row["label"]:
            table.skip("no label")
            continue
        by_role = found.setdefault(split, {"query": [], "document": []})
        by_role[row["role"]].append((recording, row["label"]))
    searches = []
    for split, by_role in found.items():
        matches = {
            (query.id, document.id)
            for query, term in by_role["query"]
            for document, terms in by_role["document"]
            if term in terms.split("|")
        }
        searches.append(
            QuerySearch(
                split=split,
                queries=tuple(query for query, _ in by_role["query"]),
                documents=tuple(document for document, _ in by_role["document"]),
                matches=frozenset(matches),
            )
        )
    return ExampleSet(name=table.manifest.stem, examples=tuple(searches), skipped=table.skipped)


def _number(text: str, column: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise SlimvoxError(f"{where}: `{column}` must be a number, but is {text!r} instead") from error
    if not value <= MAX_SECONDS:
        raise SlimvoxError(f"{where}: `{column}` must be at most {MAX_SECONDS:g}, but is {text!r} instead")
    return value
