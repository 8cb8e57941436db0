from pathlib import Path

import pytest

from slimvox.evaluation.tasks import task
from slimvox.util.errors import SlimvoxError

TRAINED = [f"id{number}" for number in range(10001, 10007)]
TESTED = ["id10270", "id10271"]


@pytest.fixture
def corpus(tmp_path: Path, sound, text) -> Path:
    lines = []
    for part, speakers in (("dev", TRAINED), ("test", TESTED)):
        for speaker in speakers:
            for number, code in enumerate((1, 1, 2, 3), 1):
                name = f"{speaker}/video{code}/0000{number}.wav"
                sound(f"VoxCeleb1/{part}/wav/{name}")
                lines.append(f"{code} {name}")
    text("VoxCeleb1/iden_split.txt", *lines)
    text(
        "VoxCeleb1/veri_test.txt",
        "1 id10270/video1/00001.wav id10270/video3/00004.wav",
        "0 id10270/video1/00001.wav id10271/video2/00003.wav",
    )
    return tmp_path


def test_speakers_by_the_official_split(corpus: Path) -> None:
    (data,) = task("sid").read_official(corpus)
    assert len(data.examples) == 32
    assert {each.labels[0] for each in data.examples} == {*TRAINED, *TESTED}
    assert [each.split for each in data.examples[:4]] == ["train", "train", "dev", "test"]
    assert all(each.recording.clips[0].path.is_file() for each in data.examples)


def test_trials_and_no_speaker_in_two_splits(corpus: Path) -> None:
    (data,) = task("asv").read_official(corpus)
    by_split: dict[str, set[str]] = {"train": set(), "dev": set()}
    for each in data.examples:
        by_split[each.split].add(each.labels[0])
    assert len(by_split["train"]) == len(by_split["dev"]) == 3
    assert by_split["train"] | by_split["dev"] == set(TRAINED)
    test = [trial for trial in data.trials if trial.split == "test"]
    assert [trial.same for trial in test] == [True, False]
    dev = [trial for trial in data.trials if trial.split == "dev"]
    assert sum(trial.same for trial in dev) * 2 == len(dev) == 36  # 3 speakers x 6 pairs, and as many of two
    assert all((t.first.split("/")[0] == t.second.split("/")[0]) == t.same for t in data.trials)
    for trial in data.trials:
        assert data.recordings[trial.first].clips[0].path.is_file()
        assert data.recordings[trial.second].clips[0].path.is_file()


def test_the_cleaned_trials_are_named_as_such(corpus: Path) -> None:
    assert "(veri_test.txt)" in task("asv").read_official(corpus)[0].name
    (corpus / "VoxCeleb1/veri_test.txt").rename(corpus / "VoxCeleb1/veri_test2.txt")
    assert "(veri_test2.txt)" in task("asv").read_official(corpus)[0].name


def test_what_is_wrong_is_said(corpus: Path, text) -> None:
    text("VoxCeleb1/veri_test.txt", "2 id10270/video1/00001.wav id10270/video3/00004.wav")
    with pytest.raises(SlimvoxError, match="must be 0 or 1"):
        task("asv").read_official(corpus)
    (corpus / "VoxCeleb1/veri_test.txt").unlink()
    with pytest.raises(SlimvoxError, match=r"there is no .*veri_test.txt"):
        task("asv").read_official(corpus)
    text("VoxCeleb1/iden_split.txt", "1 id19999/video/00001.wav")
    with pytest.raises(SlimvoxError, match="no folder of the speaker id19999"):
        task("sid").read_official(corpus)
    text("VoxCeleb1/iden_split.txt", "4 id10001/video1/00001.wav")
    with pytest.raises(SlimvoxError, match="must be 1, 2 or 3"):
        task("sid").read_official(corpus)
    (corpus / "VoxCeleb1/iden_split.txt").unlink()
    with pytest.raises(SlimvoxError, match=r"(?s)there is no .*iden_split.txt.*robots.ox.ac.uk"):
        task("sid").read_official(corpus)
