from pathlib import Path

import pytest

from slimvox.evaluation.examples import Segment
from slimvox.evaluation.readers.audio_snips import plain_word, slot_segments
from slimvox.evaluation.tasks import task
from slimvox.util.errors import SlimvoxError


@pytest.fixture
def corpus(tmp_path: Path, sound, text) -> Path:
    names = ["Ivy-snips-train-0", "Amy-snips-valid-0", "Emma-snips-test-0", "Emma-snips-train-1"]
    for name in names:
        sound(f"SNIPS/{name.split('-')[2]}/{name}.wav")
    sound("SNIPS/test/Brian-snips-test-9.wav")
    text("SNIPS/all.iob.snips.txt", *(f"{name} BOS play jazz EOS\tO O genre PlayMusic" for name in names))
    return tmp_path


def test_voices_and_splits(corpus: Path) -> None:
    (data,) = task("sf").read_official(corpus)
    assert [(each.recording.id, each.split) for each in data.examples] == [
        ("Ivy-snips-train-0", "train"),
        ("Amy-snips-valid-0", "dev"),
        ("Emma-snips-test-0", "test"),
    ]
    assert data.examples[0].segments == (Segment(text="PLAY"), Segment(text="JAZZ", slot="genre"))
    assert data.skipped == {"no transcript": 1, "another voice": 1}


def segments(line: str) -> list[tuple[str, str | None]]:
    return [(each.text, each.slot) for each in slot_segments(line, "x")]


def test_equal_tags_side_by_side_are_one_slot() -> None:
    line = "BOS add new york , to my list EOS\tO O city city O O owner list X"
    assert segments(line) == [
        ("ADD", None),
        ("NEW YORK", "city"),
        ("TO", None),
        ("MY", "owner"),
        ("LIST", "list"),
    ]


def test_tags_with_prefixes() -> None:
    line = "BOS rome new york now EOS\tO B-city B-city I-city O X"
    assert segments(line) == [("ROME", "city"), ("NEW YORK", "city"), ("NOW", None)]


@pytest.mark.parametrize(
    ("word", "plain"),
    [
        ("café", "CAFE"),
        ("Ærø", "ARO"),
        ('"hey"', "HEY"),
        ("?", ""),
        ("\N{EN DASH}", ""),
        ("&", "AND"),
        ("it's", "IT'S"),
    ],
)
def test_plain_words(word: str, plain: str) -> None:
    assert plain_word(word) == plain


def test_what_is_wrong_is_said(corpus: Path, text) -> None:
    text("SNIPS/all.iob.snips.txt", "Ivy-snips-train-0 BOS play jazz EOS\tO O PlayMusic")
    with pytest.raises(SlimvoxError, match="Ivy-snips-train-0 has 2 words, but 1 tags"):
        task("sf").read_official(corpus)
    text("SNIPS/all.iob.snips.txt", "Ivy-snips-train-0 BOS play jazz EOS\tO O genre PlayMusic")
    with pytest.raises(SlimvoxError, match=r"no recording with a transcript in .*valid"):
        task("sf").read_official(corpus)
    (corpus / "SNIPS/all.iob.snips.txt").unlink()
    with pytest.raises(SlimvoxError, match=r"(?s)there is no .*all.iob.snips.txt.*audio_slu"):
        task("sf").read_official(corpus)
