import sys
import types
from pathlib import Path

import pytest

from slimvox.evaluation.readers.librispeech import read_librispeech_phones
from slimvox.evaluation.tasks import task
from slimvox.util.errors import SlimvoxError


@pytest.fixture
def corpus(tmp_path: Path, sound, text) -> Path:
    for folder, speaker in (("train-clean-100", 19), ("dev-clean", 84), ("test-clean", 61)):
        chapter = f"LibriSpeech/{folder}/{speaker}/7"
        for number in range(2):
            sound(f"{chapter}/{speaker}-7-000{number}.flac")
        text(f"{chapter}/{speaker}-7.trans.txt", f"{speaker}-7-0000 THE CAT", f"{speaker}-7-0001 CAT'S")
    text("librispeech-lexicon.txt", "THE\tDH AH0", "THE  DH IY0", "CAT  K AE1 T", "CAT'S\tK AE1 T S")
    return tmp_path


def test_words(corpus: Path) -> None:
    (data,) = task("asr").read_official(corpus)
    assert [(each.recording.id, each.split, each.text) for each in data.examples] == [
        ("19-7-0000", "train", "THE CAT"),
        ("19-7-0001", "train", "CAT'S"),
        ("84-7-0000", "dev", "THE CAT"),
        ("84-7-0001", "dev", "CAT'S"),
        ("61-7-0000", "test", "THE CAT"),
        ("61-7-0001", "test", "CAT'S"),
    ]
    assert all(clip.path.is_file() for each in data.examples for clip in each.recording.clips)
    assert not data.skipped


def test_phones_take_the_first_pronunciation(corpus: Path) -> None:
    (data,) = task("pr").read_official(corpus)
    assert [each.text for each in data.examples[:2]] == ["DH AH0 K AE1 T", "K AE1 T S"]


def test_the_corpuss_own_folder_will_do(corpus: Path) -> None:
    assert task("pr").read_official(corpus / "LibriSpeech")[0] == task("pr").read_official(corpus)[0]


def test_words_in_no_lexicon(corpus: Path, text, monkeypatch: pytest.MonkeyPatch) -> None:
    text("librispeech-lexicon.txt", "THE DH AH0", "CAT K AE1 T")
    monkeypatch.setitem(sys.modules, "g2p_en", None)
    with pytest.raises(SlimvoxError, match=r"1 words are in no lexicon, such as CAT'S; .*pip install g2p_en"):
        read_librispeech_phones(corpus)
    data = read_librispeech_phones(corpus, pronounce=lambda word: list(word[:2]))
    assert data.examples[1].text == "C A"
    # g2p_en returns blanks and marks between the phones of words.
    stub = types.ModuleType("g2p_en")
    stub.G2p = lambda: lambda word: ["K", " ", "AE1", "T", "'", "S"]  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "g2p_en", stub)
    assert read_librispeech_phones(corpus).examples[1].text == "K AE1 T S"


def test_recordings_without_transcript_are_counted(corpus: Path, text) -> None:
    text("LibriSpeech/test-clean/61/7/61-7.trans.txt", "61-7-0000 THE CAT", "61-7-0001")
    (data,) = task("asr").read_official(corpus)
    assert data.skipped == {"no transcript": 1}
    assert len(data.examples) == 5


def test_what_is_missing_is_said(corpus: Path, tmp_path: Path, text) -> None:
    with pytest.raises(SlimvoxError, match=r"(?s)openslr.org/12.*dev-clean") as error:
        task("asr").read_official(tmp_path / "nowhere")
    assert "LibriSpeech/train-clean-100/SPEAKER/CHAPTER" in str(error.value)
    text("librispeech-lexicon.txt", "THE")
    with pytest.raises(SlimvoxError, match="line 1"):
        task("pr").read_official(corpus)
    (corpus / "librispeech-lexicon.txt").unlink()
    with pytest.raises(SlimvoxError, match="there is no lexicon"):
        task("pr").read_official(corpus)
    (corpus / "LibriSpeech/test-clean").rename(corpus / "LibriSpeech/elsewhere")
    with pytest.raises(SlimvoxError, match=r"there is no .*test-clean"):
        task("asr").read_official(corpus)


def test_no_such_task(corpus: Path) -> None:
    with pytest.raises(SlimvoxError, match="`task` must be one of pr, asr"):
        task("wer").read_official(corpus)
