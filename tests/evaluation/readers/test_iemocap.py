from pathlib import Path

import pytest

from slimvox.evaluation.tasks import task
from slimvox.util.errors import SlimvoxError

EMOTIONS = ["neu", "hap", "exc", "ang", "sad", "fru", "xxx"] + ["neu"] * 13


@pytest.fixture
def corpus(tmp_path: Path, sound, text) -> Path:
    for session in range(1, 6):
        dialogue = f"Ses0{session}F_impro01"
        folder = f"IEMOCAP/Session{session}"
        lines = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""]
        for number, emotion in enumerate(EMOTIONS):
            name = f"{dialogue}_F{number:03d}"
            sound(f"{folder}/sentences/wav/{dialogue}/{name}.wav")
            lines += [
                f"[6.2901 - 8.2357]\t{name}\t{emotion}\t[2.5000, 2.5000, 2.5000]",
                "C-E2:\tNeutral;\t()",
                "",
            ]
        text(f"{folder}/dialog/EmoEvaluation/{dialogue}.txt", *lines)
        text(f"{folder}/dialog/EmoEvaluation/Categorical/{dialogue}_e1_cat.txt", "Ses :Neutral; ()")
    return tmp_path


def test_five_folds_each_with_its_session_for_test(corpus: Path) -> None:
    folds = task("er").read_official(corpus)
    assert len(folds) == 5
    for number, fold in enumerate(folds, 1):
        by_split = {
            split: {each.recording.id for each in fold.examples if each.split == split}
            for split in ("train", "dev", "test")
        }
        assert all(by_split.values())
        assert {id[:5] for id in by_split["test"]} == {f"Ses0{number}"}
        assert not {id[:5] for id in by_split["train"] | by_split["dev"]} & {f"Ses0{number}"}
        assert sum(map(len, by_split.values())) == len(fold.examples) == 5 * 18
        assert fold.skipped == {"another emotion": 5, "no agreed emotion": 5}


def test_excitement_is_happiness(corpus: Path) -> None:
    fold = task("er").read_official(corpus)[0]
    assert [each.labels[0] for each in fold.examples[:5]] == ["neutral", "happy", "happy", "angry", "sad"]
    assert all(each.recording.clips[0].path.is_file() for each in fold.examples)


def test_about_a_fifth_for_dev_and_the_same_in_each_fold(corpus: Path) -> None:
    dev = [
        {each.recording.id for each in fold.examples if each.split == "dev"}
        for fold in task("er").read_official(corpus)
    ]
    assert all(0.05 < len(ids) / 72 < 0.4 for ids in dev)
    assert {id for id in dev[0] if not id.startswith("Ses02")} == {
        id for id in dev[1] if not id.startswith("Ses01")
    }


def test_what_is_missing_is_said(corpus: Path, text) -> None:
    text("IEMOCAP/Session5/dialog/EmoEvaluation/Ses05F_impro01.txt", "nothing")
    with pytest.raises(SlimvoxError, match=r"no turn with one of the four emotions in .*Session5"):
        task("er").read_official(corpus)
    (corpus / "IEMOCAP/Session3").rename(corpus / "IEMOCAP/other")
    with pytest.raises(SlimvoxError, match=r"(?s)there is no .*Session3.*sail.usc.edu"):
        task("er").read_official(corpus)
