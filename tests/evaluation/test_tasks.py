"""Each task learns what it should from tones, and says so when the data do not allow it."""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from evaluation_tables import write_table
from slimvox.evaluation.examples import Segment
from slimvox.evaluation.feature_cache import FeatureCache
from slimvox.evaluation.protocols import HeadProtocol
from slimvox.evaluation.tasks import task
from slimvox.evaluation.tasks.base import Scores
from slimvox.evaluation.tasks.sf import slot_symbols
from slimvox.evaluation.upstreams import Upstream
from slimvox.util.errors import SlimvoxError

MakeCache = Callable[..., FeatureCache]
WriteTones = Callable[..., str]
Row = dict[str, str]

WORDS = [a + b + c for a, b, c in itertools.product("abc", repeat=3) if a != b != c]
VOICES = {"low": 3000.0, "middle": 4200.0, "high": 6000.0}


def short(name: str, **changes: Any) -> HeadProtocol:
    return dataclasses.replace(task(name).protocols["mini"], **{"evaluations": 2, "batch": 8, **changes})


def splits(count: int) -> list[str]:
    return ["train"] * (count - 12) + ["dev"] * 4 + ["test"] * 8


class World:
    """Runs a task on a table of tones."""

    def __init__(self, folder: Path, write: WriteTones, cache: Callable[[], FeatureCache]) -> None:
        self.folder, self.write, self.make_cache = folder, write, cache

    def run(self, name: str, rows: list[Row], protocol: HeadProtocol, seeds: int = 1) -> Scores:
        table = write_table(self.folder / f"{name}.tsv", rows)
        data = task(name).read_manifest(table, self.folder / "data")
        return task(name).run(data, self.make_cache(), protocol, seeds=seeds)


@pytest.fixture
def world(tmp_path: Path, write_tones: WriteTones, make_cache: MakeCache, bands: Upstream) -> World:
    return World(tmp_path, write_tones, lambda: make_cache(bands))


def labelled(world: World, count: int = 28) -> list[Row]:
    rows = []
    for number, split in enumerate(splits(count)):
        label = "abc"[number % 3]
        rows.append({"path": world.write(f"{number}", label, seed=number), "split": split, "label": label})
    return rows


@pytest.mark.parametrize("name", ["ks", "sid", "er"])
def test_classes(world: World, name: str) -> None:
    scores = world.run(name, labelled(world), short(name, steps=40, learning_rates=(1e-2, 1e-3)), seeds=2)
    assert scores.test[name] == (100.0, 100.0)
    assert scores.chance[name] < 60
    assert set(scores.chosen["dev_accuracy_by_learning_rate"]) == {1e-2, 1e-3}
    assert scores.counts == {"train": 16, "dev": 4, "test": 8}


def test_intents_are_right_when_all_slots_are(world: World) -> None:
    rows = []
    for number, split in enumerate(splits(40)):
        first, second = "abc"[number % 3], ("low", "high")[number % 2]
        path = world.write(f"{number}", first, voice=VOICES[second], seed=number)
        rows.append({"path": path, "split": split, "label_tone": first, "label_voice": second})
    scores = world.run("ic", rows, short("ic", steps=60, learning_rates=(1e-2,)))
    assert scores.test["ic"][0] >= 75 > scores.chance["ic"]
    assert scores.details["classes"] == [3, 2]


def spoken(world: World, count: int = 40) -> list[Row]:
    draw = torch.Generator().manual_seed(0)
    rows = []
    for number, split in enumerate(splits(count)):
        word = WORDS[int(torch.randint(len(WORDS), (), generator=draw))]
        rows.append(
            {"path": world.write(f"{number}", word, seed=number), "split": split, "text": " ".join(word)}
        )
    return rows


def test_phones(world: World) -> None:
    scores = world.run(
        "pr", spoken(world, 80), short("pr", steps=300, learning_rates=(1e-2, 3e-2), whiten=False)
    )
    assert scores.test["pr"][0] < 25 < 30 < scores.chance["pr"]


def test_characters(world: World) -> None:
    protocol = short(
        "asr",
        unit="word",
        steps=300,
        learning_rates=(3e-3,),
        hidden=32,
        projection=24,
        blank_bias=0.0,
        time_masks=0,
        width_masks=0,
    )
    scores = world.run("asr", spoken(world, 72), protocol)
    assert scores.test["asr"][0] < 30 < 40 < scores.chance["asr"]
    assert scores.details["test_cer"][0] < 40


@pytest.mark.parametrize("written", ["character", "word"])
def test_slots(world: World, written: str) -> None:
    rows = []
    for number, split in enumerate(splits(40)):
        slot = "abc"[number % 3]
        path = world.write(f"{number}", slot * 2, seed=number)
        rows.append({"path": path, "split": split, "text": f"[{slot.upper()}: {slot}]"})
    protocol = short(
        "sf",
        written=written,
        stack=2,
        steps=200,
        learning_rates=(1e-2,),
        hidden=32,
        projection=24,
        blank_bias=0.0,
        time_masks=0,
        width_masks=0,
    )
    scores = world.run("sf", rows, protocol)
    assert scores.test["sf_f1"][0] > 90 > scores.chance["sf_f1"]
    assert scores.test["sf_cer"][0] < 20 < scores.chance["sf_cer"]


def test_speakers_never_heard(world: World) -> None:
    rows = []
    for split, voices in (("train", (2500, 3500, 4500, 6000)), ("dev", (3000, 5000)), ("test", (2800, 5500))):
        for voice, word in itertools.product(voices, ("a", "b", "c")):
            name = f"{voice}{word}"
            path = world.write(name, word * 2, voice=float(voice), seed=len(rows))
            rows.append({"path": path, "split": split, "label": str(voice)})
    protocol = short(
        "asv", steps=40, learning_rates=(3e-3,), projection=16, hidden=16, pooled=16, embedding=8, batch=12
    )
    scores = world.run("asv", rows, protocol)
    assert scores.test["asv"][0] < 35
    assert scores.details["training_speakers"] == 4


def test_who_speaks_when(world: World) -> None:
    rows = []
    # One voice at a time, then both; the two differ in pitch throughout.
    for number, split in enumerate(splits(24)):
        one = world.write(f"{number}x", "aaa", seed=number)
        two = world.write(f"{number}y", "ccc", seed=100 + number)
        at = 0.2 + 0.1 * (number % 5)
        rows.append(
            {
                "id": str(number),
                "path": f"{one} + {two}@{at:.1f}",
                "split": split,
                "turns": f"one 0-0.6; two {at:.1f}-{at + 0.6:.1f}",
            }
        )
    protocol = short(
        "sd", steps=60, learning_rates=(1e-2,), hidden=16, medians=(1, 11), thresholds=(0.4, 0.5)
    )
    scores = world.run("sd", rows, protocol)
    assert scores.test["sd"][0] < 20 < scores.chance["sd"]
    assert set(scores.chosen["threshold"]) <= {0.4, 0.5}


def test_queries_are_found(world: World) -> None:
    rows: list[Row] = []
    for split in ("dev", "test"):
        for term in "abc":
            path = world.write(f"{split}q{term}", term, seed=len(rows))
            rows.append({"id": path, "path": path, "split": split, "role": "query", "label": term})
        for first, second in itertools.permutations("abc", 2):
            path = world.write(f"{split}{first}{second}", first + second, seed=len(rows))
            label = f"{first}|{second}"
            rows.append({"id": path, "path": path, "split": split, "role": "document", "label": label})
    scores = world.run("qbe", rows, task("qbe").protocols["mini"])
    assert scores.test["qbe"][0] > 0.9 > scores.chance["qbe"]
    assert scores.chosen["layer"] == 0


def test_the_same_seed_gives_the_same_scores(world: World) -> None:
    protocol = short("pr", steps=5, learning_rates=(1e-2,))
    first = world.run("pr", spoken(world), protocol)
    assert first.test == world.run("pr", spoken(world), protocol).test


def test_a_split_without_examples_is_an_error(world: World) -> None:
    rows = [{**row, "split": "train"} for row in labelled(world)[:12]]
    with pytest.raises(SlimvoxError, match="no example in dev and test"):
        world.run("ks", rows, short("ks", steps=2))
    with pytest.raises(SlimvoxError, match="no example in dev"):
        world.run("pr", [{**row, "text": "a"} for row in rows], short("pr", steps=2))


def test_one_class_is_an_error_and_a_class_with_one_example_is_named(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    rows = labelled(world)
    with pytest.raises(SlimvoxError, match="nothing to learn"):
        world.run("ks", [{**row, "label": "x"} for row in rows], short("ks", steps=2))
    rows[0]["label"] = "rare"
    with caplog.at_level(logging.WARNING):
        world.run("ks", rows, short("ks", steps=2))
    assert "single training example, such as rare" in caplog.text


def test_a_label_that_train_does_not_know_counts_as_wrong(world: World) -> None:
    rows = labelled(world)
    rows[-1]["label"] = "new"
    scores = world.run("ks", rows, short("ks", steps=40, learning_rates=(1e-2,)))
    assert scores.test["ks"] == (87.5,)
    assert scores.details["labels_unknown_to_train"] == {"dev": 0, "test": 1}


def test_an_utterance_without_transcript_is_skipped_and_counted(world: World) -> None:
    rows = spoken(world)
    rows[0]["text"] = ""
    rows[1]["text"] = "a b c " * 40
    scores = world.run("pr", rows, short("pr", steps=2))
    assert scores.skipped == {"no transcript": 1, "longer transcript than audio": 1}
    assert scores.counts["train"] == 26


def test_an_empty_split_is_explained_by_what_was_skipped(world: World) -> None:
    rows = spoken(world)
    for row in rows:
        row["text"] = "a b c " * 40 if row["split"] == "train" else row["text"]
    rows[0]["text"] = ""
    expected = r"in train \(skipped: 1 no transcript, 27 longer transcript than audio\);"
    with pytest.raises(SlimvoxError, match=expected):
        world.run("pr", rows, short("pr", steps=2))


def test_a_head_that_diverges_everywhere_is_an_error(world: World) -> None:
    protocol = short("pr", steps=8, learning_rates=(1e30,), gradient_clip=1e30)
    with pytest.raises(SlimvoxError, match="diverged at every learning rate"):
        world.run("pr", spoken(world), protocol)


def test_a_recording_in_train_and_in_a_trial_is_an_error(world: World) -> None:
    from slimvox.evaluation.examples import VerificationSet

    path = world.write("a", "a")
    rows = [{"path": path, "split": split, "label": "x"} for split in ("train", "dev", "dev")]
    table = write_table(world.folder / "asv.tsv", rows)
    data = task("asv").read_manifest(table, world.folder / "data")
    assert isinstance(data, VerificationSet) and data.trials
    with pytest.raises(SlimvoxError, match="is in train and in a trial of dev"):
        task("asv").run(data, world.make_cache(), task("asv").protocols["mini"], seeds=1)


def test_slots_as_characters_and_as_words() -> None:
    segments = (Segment(text="a"), Segment(text="very small", slot="size"))
    assert "".join(slot_symbols(segments, "character")) == "a B-size very small E-size"
    assert slot_symbols(segments, "character")[2:6] == ("B-size", " ", "v", "e")
    assert slot_symbols(segments, "word") == ("a", "B-size", "very", "small", "E-size")


def test_data_without_anything_to_measure_is_an_error(world: World) -> None:
    rows = [{**row, "text": "a b"} for row in spoken(world)]
    rows[0]["text"] = "[size: a] b"
    with pytest.raises(SlimvoxError, match="sf: no text in dev has a slot"):
        world.run("sf", rows, short("sf", steps=2))
    rows = [{**row, "turns": "x 0-0.1; y 0-0.1"} for row in rows]
    for row in rows:
        if row["split"] == "test":
            row["turns"] = "x 90-91; y 90-91"
    with pytest.raises(SlimvoxError, match="sd: in test, all turns lie beyond the end"):
        world.run("sd", rows, short("sd", steps=2))
