"""Libri2Mix for diarization, in the Kaldi layout that s3prl's data preparation writes."""

from __future__ import annotations

from pathlib import Path

from slimvox.evaluation.examples import SPLITS, ConversationExample, ExampleSet, Recording, Turn
from slimvox.evaluation.readers.corpus import Corpus
from slimvox.util.errors import SlimvoxError

LIBRI2MIX = Corpus(
    name="Libri2Mix",
    folder="Libri2Mix_diarization",
    marker="train/wav.scp",
    download=(
        "Make the mixtures with https://github.com/ftshijt/LibriMix (generate_librimix.sh, 16 kHz, max) and then the"
        " folder with its scripts/prepare_diarization.py"
    ),
    layout="""train/wav.scp
train/segments
train/utt2spk
dev/...
test/...""",
)


def read_libri2mix(data: Path) -> ExampleSet[ConversationExample]:
    """SD: recordings of `wav.scp`, and their turns from `segments` and `utt2spk`. Paths may be relative to the split.

    Raises:
        SlimvoxError: if the corpus is missing or incomplete, or if its files contradict each other.
    """
    root = LIBRI2MIX.find(data)
    examples: list[ConversationExample] = []
    silent = 0
    for split in SPLITS:
        folder = root / split
        speakers = dict(LIBRI2MIX.fields(folder / "utt2spk", 2))
        turns: dict[str, list[Turn]] = {}
        for utterance, recording, start, end in LIBRI2MIX.fields(folder / "segments", 4):
            if utterance not in speakers:
                raise SlimvoxError(f"Libri2Mix: {folder}/utt2spk does not say who speaks {utterance}")
            turns.setdefault(recording, []).append(_turn(speakers[utterance], start, end, folder))
        for name, path in LIBRI2MIX.fields(folder / "wav.scp", 2):
            if path.endswith("|"):
                raise SlimvoxError(
                    f"Libri2Mix: {folder}/wav.scp must name files, but has the command {path!r}"
                )
            if name not in turns:
                silent += 1
                continue
            examples.append(
                ConversationExample(
                    recording=Recording.of_file(f"{split}/{name}", folder / path),
                    split=split,
                    turns=tuple(sorted(turns[name], key=lambda turn: (turn.start_seconds, turn.speaker))),
                )
            )
    return ExampleSet(
        name="Libri2Mix", examples=tuple(examples), skipped={"no turns": silent} if silent else {}
    )


def _turn(speaker: str, start: str, end: str, folder: Path) -> Turn:
    try:
        turn = Turn(speaker=speaker, start_seconds=float(start), end_seconds=float(end))
    except ValueError as error:
        raise SlimvoxError(
            f"Libri2Mix: {folder}/segments has {start} {end} instead of two numbers of seconds"
        ) from error
    if turn.end_seconds <= turn.start_seconds:
        raise SlimvoxError(f"Libri2Mix: {folder}/segments has a turn from {start} to {end}")
    return turn
