"""The committed tables of mini-SUPERB."""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from slimvox.evaluation.data_fingerprint import describe_data
from slimvox.evaluation.examples import ExampleSet, LabelledExample, Recording, VerificationSet
from slimvox.evaluation.result_table import FIXED_ROWS
from slimvox.evaluation.suite import default_tasks
from slimvox.evaluation.tasks import SUPERB, task, task_names
from slimvox.evaluation.tasks.asv import speakers_of


def folds_of(name: str) -> list[ExampleSet[Any]]:
    return [fold for path in task(name).mini_tables() for fold in task(name).read_folds(path, Path("/"))]


FOLDS = [(name, fold) for name in task_names() for fold in range(len(folds_of(name)))]


def files_by_split(name: str, fold: int) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for example in folds_of(name)[fold].examples:
        recordings = task(name).recordings(example)
        found[example.split] |= {str(clip.path) for each in recordings for clip in each.clips}
    return found


def speaker(file: str) -> str:
    """Speaker of a file of speechocean762, EmoDB or the Arabic commands: the beginning of its name."""
    stem = Path(file).stem
    return stem[1:5] if "so762" in file else stem[:2] if "emodb" in file else stem.split("_")[0]


@pytest.mark.parametrize(("name", "fold"), FOLDS)
def test_no_recording_is_in_two_splits(name: str, fold: int) -> None:
    files = files_by_split(name, fold)
    splits = {"dev", "test"} if name == "qbe" else {"train", "dev", "test"}
    assert set(files) == splits
    for a, b in itertools.combinations(files.values(), 2):
        assert not a & b


@pytest.mark.parametrize("name", ["pr", "asr", "asv", "sd", "er", "qbe", "ks"])
def test_no_speaker_is_in_two_splits(name: str) -> None:
    for fold in range(len(folds_of(name))):
        speakers = {
            # The wake words' speakers are not named.
            split: {speaker(file) for file in files if "wake/" not in file}
            for split, files in files_by_split(name, fold).items()
        }
        for a, b in itertools.combinations(speakers.values(), 2):
            assert not a & b


def test_every_speaker_to_be_identified_is_in_all_splits() -> None:
    for fold in folds_of("sid"):
        labels = defaultdict(set)
        for example in fold.examples:
            labels[example.split].add(example.labels)
        assert labels["train"] == labels["dev"] == labels["test"]


@pytest.mark.parametrize(("name", "clips"), [("sid", 600), ("ic", 619), ("er", 535)])
def test_folds_test_every_clip_once_on_the_same_features(name: str, clips: int) -> None:
    folds = folds_of(name)
    tested = [each.recording for fold in folds for each in fold.examples if each.split == "test"]
    assert len(tested) == clips == len(set(tested))
    # The same recordings in the same order are one entry of the feature cache.
    assert {tuple(each.recording for each in fold.examples) for fold in folds} == {
        tuple(each.recording for each in folds[0].examples)
    }
    assert task(name).protocols["mini"].train_seconds is None


@pytest.mark.parametrize("name", ["pr", "asr", "sid", "asv", "er", "ks", "qbe"])
def test_speakers_of_test_clips_are_named_where_they_are_known(name: str) -> None:
    for example in folds_of(name)[0].examples:
        given = example.queries if name == "qbe" else task(name).recordings(example)
        for recording in given:
            path = str(recording.clips[0].path)
            if "wake/" in path:
                assert recording.speaker is None and recording.sources == (recording.id,)
            else:
                assert recording.speaker == f"{Path(path).parts[1]}-{speaker(path)}"


def test_five_folds_of_emotions_test_every_speaker_once() -> None:
    assert len(folds_of("er")) == 5
    tested = [{speaker(file) for file in files_by_split("er", fold)["test"]} for fold in range(5)]
    assert [len(each) for each in tested] == [2] * 5 and len(set().union(*tested)) == 10


def test_verification_has_trials_of_both_kinds() -> None:
    data = task("asv").read_manifest(task("asv").mini_tables()[0], Path("/"))
    assert isinstance(data, VerificationSet)
    test = [trial.same for trial in data.trials if trial.split == "test"]
    assert sum(test) == 2_800 and len(test) == 5_600


def test_every_task_has_both_protocols_and_data() -> None:
    assert default_tasks("mini") == default_tasks("official") == tuple(each.name for each in SUPERB)
    for name in task_names():
        assert set(task(name).protocols) == {"mini", "official"} and task(name).name == name


@pytest.mark.parametrize("name", [each.name for each in SUPERB])
def test_the_tables_are_those_that_the_fixed_rows_were_measured_on(name: str) -> None:
    fixed = json.loads((task(name).mini_tables()[0].parent / FIXED_ROWS).read_text(encoding="utf-8"))
    assert describe_data(folds_of(name), Path("/")) == fixed["data_fingerprints"][name]


@pytest.mark.parametrize("name", ["sid", "asv"])
def test_speakers_cannot_be_told_by_their_recording_channel(name: str) -> None:
    examples = task(name).read_manifest(task(name).mini_tables()[0], Path("/")).examples
    channels = [example.recording.channel for example in examples]
    assert None not in channels and len(set(channels)) == len(channels)


def test_a_term_is_in_few_of_the_documents() -> None:
    for search in task("qbe").read_manifest(task("qbe").mini_tables()[0], Path("/")).examples:
        share = len(search.matches) / (len(search.queries) * len(search.documents))
        assert share == pytest.approx(0.1, abs=0.001)


def test_intents_and_slots_are_of_the_same_orders_and_agree() -> None:
    intents = task("ic").read_manifest(task("ic").mini_tables()[0], Path("/"))
    slots = task("sf").read_manifest(task("sf").mini_tables()[0], Path("/"))
    assert len(intents.examples) == len(slots.examples)
    for intent, order in zip(intents.examples, slots.examples, strict=True):
        assert intent.recording == order.recording
        filled = {segment.slot: segment.text for segment in order.segments}
        assert intent.labels == tuple(filled.get(name, "") for name in intents.label_names)


def test_a_speaker_has_the_name_of_other_tasks_in_trials() -> None:
    """Intervals of several tasks give a speaker one weight, and know speakers by name."""
    recordings = {
        "one": Recording(id="one", clips=(), speaker="so762-0001"),
        "two": Recording(id="two", clips=()),
        "three": Recording(id="three", clips=()),
    }
    examples = tuple(
        LabelledExample(recording=recordings[id], split="train", labels=(label,))
        for id, label in (("one", "0001"), ("two", "0002"))
    )
    data = VerificationSet(name="asv", examples=examples, recordings=recordings)
    assert speakers_of(data) == {"one": "so762-0001", "two": "0002", "three": "three"}
