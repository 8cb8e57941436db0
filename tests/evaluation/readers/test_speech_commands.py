from collections import Counter
from pathlib import Path

import pytest

from slimvox.evaluation.readers.speech_commands import KEYWORDS
from slimvox.evaluation.tasks import task
from slimvox.util.errors import SlimvoxError

ROOT, TEST = "speech_commands_v0.01", "speech_commands_test_set_v0.01"


@pytest.fixture
def corpus(tmp_path: Path, sound, text) -> Path:
    for word in (*KEYWORDS, "bed", "zero"):
        for number in range(3):
            sound(f"{ROOT}/{word}/{number}_nohash_0.wav")
    text(f"{ROOT}/validation_list.txt", *(f"{word}/1_nohash_0.wav" for word in (*KEYWORDS, "bed")))
    text(f"{ROOT}/testing_list.txt", *(f"{word}/2_nohash_0.wav" for word in (*KEYWORDS, "bed")))
    sound(f"{ROOT}/_background_noise_/pink_noise.wav", seconds=4.5)
    for label in (*KEYWORDS, "_unknown_", "_silence_"):
        sound(f"{TEST}/{label}/a.wav")
    return tmp_path


def test_twelve_classes_by_the_official_lists(corpus: Path) -> None:
    (data,) = task("ks").read_official(corpus)
    counts = Counter((each.split, each.labels[0]) for each in data.examples)
    assert {label for _, label in counts} == {*KEYWORDS, "_unknown_", "_silence_"}
    assert counts["train", "yes"] == counts["dev", "yes"] == counts["test", "yes"] == 1
    assert counts["train", "_unknown_"] == 1 + 3  # `bed` by the lists, all of `zero`
    assert counts["dev", "_unknown_"] == 1
    ids = [each.recording.id for each in data.examples]
    assert len(ids) == len(set(ids))
    assert not any("2_nohash" in id for id in ids if "zero" not in id)


def test_noise_is_cut_into_seconds_none_of_which_is_in_two_splits(corpus: Path) -> None:
    (data,) = task("ks").read_official(corpus)
    noise = [each for each in data.examples if "_background_noise_" in each.recording.id]
    assert [each.split for each in noise] == ["train", "train", "train", "dev"]
    assert [each.recording.clips[0].start_seconds for each in noise] == [0, 1, 2, 3]
    assert noise[-1].recording.clips[0].end_seconds == 4


def test_what_is_missing_is_said(corpus: Path) -> None:
    (corpus / TEST / "go" / "a.wav").unlink()
    with pytest.raises(SlimvoxError, match="no recording of `go` in test"):
        task("ks").read_official(corpus)
    (corpus / TEST).rename(corpus / "elsewhere")
    with pytest.raises(
        SlimvoxError, match=r"(?s)there is no .*test_set_v0.01.*speech_commands_test_set_v0.01.tar.gz"
    ):
        task("ks").read_official(corpus)
    (corpus / ROOT / "validation_list.txt").unlink()
    with pytest.raises(SlimvoxError, match=r"there is no .*validation_list.txt"):
        task("ks").read_official(corpus)
