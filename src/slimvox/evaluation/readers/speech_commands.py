"""Speech Commands v0.01: twelve classes, ten keywords, `_unknown_` and `_silence_`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from slimvox.audio.decode import measure
from slimvox.evaluation.examples import ExampleSet, LabelledExample, Recording, Split
from slimvox.evaluation.readers.corpus import Corpus
from slimvox.util.errors import SlimvoxError

SPEECH_COMMANDS = Corpus(
    name="Speech Commands v0.01",
    folder="speech_commands_v0.01",
    marker="validation_list.txt",
    download=(
        "Download speech_commands_v0.01.tar.gz and speech_commands_test_set_v0.01.tar.gz from"
        " http://download.tensorflow.org/data/ and unpack each into a folder of its name"
    ),
    layout="""validation_list.txt
testing_list.txt
_background_noise_/*.wav
yes/*.wav
... (30 words)
../speech_commands_test_set_v0.01/yes/*.wav
../speech_commands_test_set_v0.01/_silence_/*.wav
../speech_commands_test_set_v0.01/_unknown_/*.wav
... (12 classes)""",
)
TEST_FOLDER = "speech_commands_test_set_v0.01"
KEYWORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
UNKNOWN, SILENCE, NOISE = "_unknown_", "_silence_", "_background_noise_"
DEV_SHARE_OF_NOISE = 0.1
"""The official lists do not split the background noise; its last seconds are kept for dev."""


def read_speech_commands(data: Path) -> ExampleSet[LabelledExample]:
    """KS. Train and dev by the official lists, test from the separate test set; noise is cut into seconds.

    Classes differ much in size (`_unknown_` is two thirds of train): SUPERB draws them equally often in training.

    Raises:
        SlimvoxError: if the corpus or its test set is missing or incomplete.
    """
    root = SPEECH_COMMANDS.find(data)
    test = next((place for place in (data, root.parent, root) if (place / TEST_FOLDER).is_dir()), None)
    if test is None:
        raise SPEECH_COMMANDS.missing(root.parent / TEST_FOLDER)
    dev = set(SPEECH_COMMANDS.lines(root / "validation_list.txt"))
    left_to_test = set(SPEECH_COMMANDS.lines(root / "testing_list.txt"))
    examples = [*_words(root, dev, left_to_test), *_silence(SPEECH_COMMANDS.need(root / NOISE))]
    for label in (*KEYWORDS, UNKNOWN, SILENCE):
        folder = SPEECH_COMMANDS.need(test / TEST_FOLDER / label)
        examples += [
            _example(f"test/{label}/{path.stem}", path, "test", label)
            for path in sorted(folder.glob("*.wav"))
        ]
    _check(examples)
    return ExampleSet(name="Speech Commands v0.01", examples=tuple(examples), label_names=("keyword",))


def _words(root: Path, dev: set[str], left_to_test: set[str]) -> list[LabelledExample]:
    examples = []
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        if folder.name in (NOISE, TEST_FOLDER):
            continue
        label = folder.name if folder.name in KEYWORDS else UNKNOWN
        for path in sorted(folder.glob("*.wav")):
            name = f"{folder.name}/{path.name}"
            if name not in left_to_test:
                split: Split = "dev" if name in dev else "train"
                examples.append(_example(f"{folder.name}/{path.stem}", path, split, label))
    return examples


def _silence(folder: Path) -> list[LabelledExample]:
    """Whole seconds of noise."""
    examples = []
    for path in sorted(folder.glob("*.wav")):
        seconds = int(measure(path).seconds)
        for second in range(seconds):
            split: Split = (
                "dev" if second >= seconds - max(1, round(DEV_SHARE_OF_NOISE * seconds)) else "train"
            )
            recording = Recording.of_file(
                f"{NOISE}/{path.stem}_{second}", path, start_seconds=float(second), end_seconds=second + 1.0
            )
            examples.append(LabelledExample(recording=recording, split=split, labels=(SILENCE,)))
    return examples


def _example(id: str, path: Path, split: Split, label: str) -> LabelledExample:
    return LabelledExample(recording=Recording.of_file(id, path), split=split, labels=(label,))


def _check(examples: list[LabelledExample]) -> None:
    counts = Counter((each.split, each.labels[0]) for each in examples)
    splits: tuple[Split, ...] = ("train", "dev", "test")
    for split in splits:
        absent = [label for label in (*KEYWORDS, UNKNOWN, SILENCE) if not counts[split, label]]
        if absent:
            raise SlimvoxError(
                f"Speech Commands v0.01: there is no recording of `{absent[0]}` in {split}; is it complete?"
            )
