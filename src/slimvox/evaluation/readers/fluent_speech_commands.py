"""Fluent Speech Commands: spoken orders, each with an action, an object and a location."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from slimvox.evaluation.examples import ExampleSet, LabelledExample, Recording, Split
from slimvox.evaluation.readers.corpus import Corpus
from slimvox.util.errors import SlimvoxError

FLUENT = Corpus(
    name="Fluent Speech Commands",
    folder="fluent_speech_commands_dataset",
    marker="data",
    download="Download it from https://fluent.ai/fluent-speech-commands-a-dataset-for-spoken-language-understanding-research/"
    " and unpack it",
    layout="""data/train_data.csv
data/valid_data.csv
data/test_data.csv
wavs/speakers/SPEAKER/*.wav""",
)
TABLES: Mapping[Split, str] = {"train": "train_data.csv", "dev": "valid_data.csv", "test": "test_data.csv"}
SLOTS = ("action", "object", "location")


def read_fluent_speech_commands(data: Path) -> ExampleSet[LabelledExample]:
    """IC: three labels per recording, all of which have to be right.

    Raises:
        SlimvoxError: if the corpus is missing or incomplete.
    """
    root = FLUENT.find(data)
    examples: list[LabelledExample] = []
    unlabelled = 0
    for split, table in TABLES.items():
        for row in FLUENT.table(root / "data" / table, ("path", *SLOTS)):
            labels = tuple(row[slot] for slot in SLOTS)
            if not all(labels):
                unlabelled += 1
                continue
            recording = Recording.of_file(Path(row["path"]).stem, root / row["path"])
            examples.append(LabelledExample(recording=recording, split=split, labels=labels))
        if not any(each.split == split for each in examples):
            raise SlimvoxError(
                f"Fluent Speech Commands: there is no labelled recording in {root}/data/{table}"
            )
    skipped = {"no label": unlabelled} if unlabelled else {}
    return ExampleSet(
        name="Fluent Speech Commands", examples=tuple(examples), label_names=SLOTS, skipped=skipped
    )
