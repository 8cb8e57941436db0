"""VoxCeleb1: 1,251 speakers for SID, the trials of Vox1-O for ASV."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

from slimvox.evaluation.examples import ExampleSet, LabelledExample, Recording, Split, Trial, VerificationSet
from slimvox.evaluation.manifests import verification_set
from slimvox.evaluation.readers.corpus import Corpus
from slimvox.util.errors import SlimvoxError

VOXCELEB1 = Corpus(
    name="VoxCeleb1",
    folder="VoxCeleb1",
    marker="iden_split.txt",
    download=(
        "Download the audio of its dev and test parts, iden_split.txt and veri_test.txt from"
        " https://www.robots.ox.ac.uk/~vgg/data/voxceleb/vox1.html"
    ),
    layout="""iden_split.txt
veri_test.txt
dev/wav/id10001/VIDEO/NUMBER.wav
test/wav/id10270/VIDEO/NUMBER.wav""",
)
SPLITS: Mapping[str, Split] = {"1": "train", "2": "dev", "3": "test"}
TRIAL_LISTS = ("veri_test.txt", "voxceleb1_test.txt", "veri_test2.txt", "voxceleb1_test_v2.txt")
"""Vox1-O, and then its cleaned version."""
DEV_SPEAKERS, DEV_UTTERANCES = 40, 10
"""Held out of training for ASV, to choose the learning rate: speakers, and utterances of each."""


def read_voxceleb1_speakers(data: Path) -> ExampleSet[LabelledExample]:
    """SID by the official split; a speaker's utterances of one video are in one split.

    Raises:
        SlimvoxError: if the corpus is missing or incomplete.
    """
    root = VOXCELEB1.find(data)
    folders = _speaker_folders(root)
    examples = [
        LabelledExample(recording=_recording(name, folders), split=split, labels=(_speaker(name),))
        for name, split in _listed(root)
    ]
    return ExampleSet(name="VoxCeleb1", examples=tuple(examples), label_names=("speaker",))


def read_voxceleb1_trials(data: Path) -> VerificationSet:
    """ASV: Vox1-O is the test; all speakers that do not occur in it are for training.

    SUPERB has no dev set here (it reports the best of ten checkpoints on test). So that nothing is chosen on test, 40
    of the 1,211 speakers are kept out of training, and dev trials are drawn from 10 utterances of each.

    Raises:
        SlimvoxError: if the corpus is missing or incomplete.
    """
    root = VOXCELEB1.find(data)
    folders = _speaker_folders(root)
    trials, listing = _trials(root)
    tested = {name for trial in trials for name in (trial.first, trial.second)}
    by_speaker: dict[str, list[str]] = {}
    for name, _ in _listed(root):
        by_speaker.setdefault(_speaker(name), []).append(name)
    for name in tested:
        by_speaker.pop(_speaker(name), None)
    if len(by_speaker) < 4:
        raise SlimvoxError(
            f"VoxCeleb1: iden_split.txt leaves {len(by_speaker)} speakers to train on; is it complete?"
        )
    draw = random.Random(0)
    held_out = draw.sample(sorted(by_speaker), min(DEV_SPEAKERS, len(by_speaker) // 2))
    dev = {
        speaker: draw.sample(sorted(by_speaker[speaker]), min(DEV_UTTERANCES, len(by_speaker[speaker])))
        for speaker in held_out
    }

    def labelled(speaker: str, names: list[str], split: Split) -> list[LabelledExample]:
        return [
            LabelledExample(recording=_recording(name, folders), split=split, labels=(speaker,))
            for name in names
        ]

    training = [
        each
        for speaker, names in by_speaker.items()
        if speaker not in dev
        for each in labelled(speaker, names, "train")
    ]
    choosing = [each for speaker, names in dev.items() for each in labelled(speaker, names, "dev")]
    drawn = verification_set(ExampleSet(name="", examples=tuple(choosing)))
    return VerificationSet(
        name=f"VoxCeleb1 ({listing})",
        examples=(*training, *choosing),
        label_names=("speaker",),
        recordings={**drawn.recordings, **{name: _recording(name, folders) for name in sorted(tested)}},
        trials=(*drawn.trials, *trials),
    )


def _listed(root: Path) -> list[tuple[str, Split]]:
    """Utterances (id10001/VIDEO/NUMBER.wav) with their split."""
    path = root / "iden_split.txt"
    listed = []
    for code, name in VOXCELEB1.fields(path, 2):
        if code not in SPLITS or name.count("/") != 2:
            raise SlimvoxError(
                f"VoxCeleb1: {path} must be 1, 2 or 3 and an utterance a line, but has {code} {name}"
            )
        listed.append((name, SPLITS[code]))
    return listed


def _trials(root: Path) -> tuple[list[Trial], str]:
    listing = next((name for name in TRIAL_LISTS if (root / name).is_file()), None)
    if listing is None:
        raise VOXCELEB1.missing(root / TRIAL_LISTS[0])
    trials = []
    for same, first, second in VOXCELEB1.fields(root / listing, 3):
        if same not in ("0", "1") or first.count("/") != 2 or second.count("/") != 2:
            raise SlimvoxError(
                f"VoxCeleb1: {root / listing} must be 0 or 1 and two utterances a line, but has {same} {first} {second}"
            )
        trials.append(Trial(first=first, second=second, same=same == "1", split="test"))
    return trials, listing


def _speaker_folders(root: Path) -> dict[str, Path]:
    """Folder of each speaker, with the parts unpacked separately, or both in one `wav`."""
    return {path.name: path for pattern in ("*/wav/id*", "wav/id*") for path in root.glob(pattern)}


def _speaker(name: str) -> str:
    return name.split("/", 1)[0]


def _recording(name: str, folders: Mapping[str, Path]) -> Recording:
    speaker, rest = name.split("/", 1)
    if speaker not in folders:
        raise SlimvoxError(
            f"VoxCeleb1: there is no folder of the speaker {speaker} in dev/wav or test/wav; {VOXCELEB1.download}"
        )
    return Recording.of_file(name, folders[speaker] / rest)
