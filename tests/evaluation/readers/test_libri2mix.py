from pathlib import Path

import pytest

from slimvox.evaluation.examples import Turn
from slimvox.evaluation.tasks import task
from slimvox.util.errors import SlimvoxError

ROOT = "Libri2Mix_diarization"


@pytest.fixture
def corpus(tmp_path: Path, sound, text) -> Path:
    for split in ("train", "dev", "test"):
        absolute = sound(f"elsewhere/{split}.wav")
        sound(f"{ROOT}/{split}/audio/b.wav")
        text(f"{ROOT}/{split}/wav.scp", f"mix_a {absolute}", "mix_b audio/b.wav", "mix_c audio/c.wav")
        text(
            f"{ROOT}/{split}/segments",
            "19_mix_a mix_a 0.30 2.00",
            "84_mix_a mix_a 0.00 1.50",
            "19_mix_b mix_b 0.00 1.00",
        )
        text(f"{ROOT}/{split}/utt2spk", "19_mix_a 19", "84_mix_a 84", "19_mix_b 19")
    return tmp_path


def test_turns_of_each_recording(corpus: Path) -> None:
    (data,) = task("sd").read_official(corpus)
    assert [(each.recording.id, each.split) for each in data.examples[:2]] == [
        ("train/mix_a", "train"),
        ("train/mix_b", "train"),
    ]
    assert data.examples[0].turns == (
        Turn(speaker="84", start_seconds=0.0, end_seconds=1.5),
        Turn(speaker="19", start_seconds=0.3, end_seconds=2.0),
    )
    assert all(each.recording.clips[0].path.is_file() for each in data.examples)
    assert data.skipped == {"no turns": 3}


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("segments", "19_mix_a mix_a 2.00 0.30", "a turn from 2.00 to 0.30"),
        ("segments", "19_mix_a mix_a soon later", "instead of two numbers of seconds"),
        ("segments", "19_mix_a mix_a 0.30", "line 1 of .* must have 4 fields"),
        ("utt2spk", "x y", "does not say who speaks 19_mix_a"),
        ("wav.scp", "mix_a sox a.flac -t wav - |", "must name files"),
    ],
)
def test_what_is_wrong_is_said(corpus: Path, text, file: str, line: str, message: str) -> None:
    text(f"{ROOT}/dev/{file}", line)
    with pytest.raises(SlimvoxError, match=message):
        task("sd").read_official(corpus)


def test_what_is_missing_is_said(corpus: Path) -> None:
    (corpus / ROOT / "test/segments").unlink()
    with pytest.raises(SlimvoxError, match=r"(?s)there is no .*test/segments.*prepare_diarization.py"):
        task("sd").read_official(corpus)
