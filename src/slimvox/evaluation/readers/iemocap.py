"""IEMOCAP: four emotions, five folds, each of which tests on one session."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from slimvox.evaluation.examples import ExampleSet, LabelledExample, Recording, Split
from slimvox.evaluation.readers.corpus import Corpus
from slimvox.util.errors import SlimvoxError

IEMOCAP = Corpus(
    name="IEMOCAP",
    folder="IEMOCAP",
    marker="Session1",
    download="Request it at https://sail.usc.edu/iemocap/iemocap_release.htm and unpack it (IEMOCAP_full_release)",
    layout="""Session1/dialog/EmoEvaluation/Ses01F_impro01.txt
Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav
... (Session1 to Session5)""",
)
SESSIONS = ("Session1", "Session2", "Session3", "Session4", "Session5")
EMOTIONS: Mapping[str, str] = {
    "neu": "neutral",
    "hap": "happy",
    "exc": "happy",
    "ang": "angry",
    "sad": "sad",
}
DEV_SHARE = 0.2

_TURN = re.compile(r"^\[[\d.]+ - [\d.]+\]\t(\S+)\t(\w+)\t", re.MULTILINE)


def read_iemocap(data: Path) -> tuple[ExampleSet[LabelledExample], ...]:
    """ER, one set per fold: a session for test, a fifth of the others for dev, drawn by a hash of the name.

    Excitement counts as happiness; turns of other emotions, or on which the annotators did not agree, are left out
    and counted.

    Raises:
        SlimvoxError: if the corpus is missing or incomplete.
    """
    root = IEMOCAP.find(data)
    skipped: dict[str, int] = {}
    sessions = {session: _session(root / session, skipped) for session in SESSIONS}
    return tuple(
        ExampleSet(
            name=f"IEMOCAP, fold {number} of {len(SESSIONS)}",
            examples=tuple(
                LabelledExample(
                    recording=recording,
                    split="test" if session == tested else _train_or_dev(recording.id),
                    labels=(emotion,),
                )
                for session, turns in sessions.items()
                for recording, emotion in turns
            ),
            label_names=("emotion",),
            skipped=skipped,
        )
        for number, tested in enumerate(SESSIONS, 1)
    )


def _session(folder: Path, skipped: dict[str, int]) -> list[tuple[Recording, str]]:
    recordings = IEMOCAP.need(folder / "sentences" / "wav")
    turns = []
    # Not in sub-folders: those hold the single annotators' opinions.
    for path in sorted(IEMOCAP.need(folder / "dialog" / "EmoEvaluation").glob("Ses*.txt")):
        for name, emotion in _TURN.findall("\n".join(IEMOCAP.lines(path)) + "\n"):
            if emotion in EMOTIONS:
                recording = Recording.of_file(name, recordings / name.rsplit("_", 1)[0] / f"{name}.wav")
                turns.append((recording, EMOTIONS[emotion]))
            else:
                reason = "no agreed emotion" if emotion == "xxx" else "another emotion"
                skipped[reason] = skipped.get(reason, 0) + 1
    if not turns:
        raise SlimvoxError(
            f"IEMOCAP: there is no turn with one of the four emotions in {folder}/dialog/EmoEvaluation"
        )
    return turns


def _train_or_dev(name: str) -> Split:
    place = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
    return "dev" if place < DEV_SHARE else "train"
