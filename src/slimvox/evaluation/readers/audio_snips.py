"""Audio SNIPS: orders read by synthetic voices, with slots; eight voices to train, four for dev and four for test."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Mapping
from pathlib import Path

from slimvox.evaluation.examples import ExampleSet, Recording, Segment, SlotExample, Split
from slimvox.evaluation.readers.corpus import Corpus
from slimvox.util.errors import SlimvoxError

AUDIO_SNIPS = Corpus(
    name="Audio SNIPS",
    folder="SNIPS",
    marker="all.iob.snips.txt",
    download=(
        "Download audio_slu (Audio SNIPS of Lai et al.,"
        " https://github.com/jefflai108/Semi-Supervsied-Spoken-Language-Understanding-PyTorch)"
        " and convert its recordings to wav at 16 kHz, as s3prl's preprocess/snips_prepare_data.sh does"
    ),
    layout="""all.iob.snips.txt
train/VOICE-snips-train-NUMBER.wav
valid/VOICE-snips-valid-NUMBER.wav
test/VOICE-snips-test-NUMBER.wav""",
)
FOLDERS: Mapping[Split, str] = {"train": "train", "dev": "valid", "test": "test"}
VOICES: Mapping[Split, frozenset[str]] = {
    "train": frozenset({"Ivy", "Joanna", "Joey", "Justin", "Kendra", "Kimberly", "Matthew", "Salli"}),
    "dev": frozenset({"Aditi", "Amy", "Geraint", "Nicole"}),
    "test": frozenset({"Brian", "Emma", "Raveena", "Russell"}),
}
PUNCTUATION = frozenset("?!.,;-\N{EN DASH}…")
SPELLINGS = {"楽園追放": "EXPELLED", "官方杂志": "", "&": "AND"}
"""Words of the set that are not in Latin letters."""
_LETTERS = str.maketrans({"Æ": "A", "Ð": "D", "Ø": "O", "\N{EN DASH}": "-", '"': None})


def read_audio_snips(data: Path) -> ExampleSet[SlotExample]:
    """SF: transcripts in plain capitals without punctuation marks, cut where slots begin and end.

    Raises:
        SlimvoxError: if the corpus is missing or incomplete, or if a transcript and its tags differ in length.
    """
    root = AUDIO_SNIPS.find(data)
    transcripts = dict(AUDIO_SNIPS.fields(root / "all.iob.snips.txt", 2))
    examples: list[SlotExample] = []
    skipped = {"no transcript": 0, "another voice": 0}
    for split, folder in FOLDERS.items():
        for path in sorted(AUDIO_SNIPS.need(root / folder).rglob("*.wav")):
            if path.stem not in transcripts:
                skipped["no transcript"] += 1
            elif path.stem.split("-", 1)[0] not in VOICES[split]:
                skipped["another voice"] += 1
            else:
                segments = slot_segments(transcripts[path.stem], path.stem)
                recording = Recording.of_file(path.stem, path)
                examples.append(SlotExample(recording=recording, split=split, segments=segments))
        if not any(each.split == split for each in examples):
            raise SlimvoxError(
                f"Audio SNIPS: there is no recording with a transcript in {root / folder} by one of the voices"
                f" {', '.join(sorted(VOICES[split]))}"
            )
    counted = {reason: count for reason, count in skipped.items() if count}
    return ExampleSet(name="Audio SNIPS", examples=tuple(examples), skipped=counted)


def slot_segments(line: str, id: str) -> tuple[Segment, ...]:
    """Cut a transcript: "BOS play jazz EOS<tab>O O genre PlayMusic" gives "PLAY" and, in the slot `genre`, "JAZZ".

    Equal tags side by side are one slot; tags of the form B-genre and I-genre are understood too.

    Args:
        line: words from BOS to EOS, a tab, a tag per word but the last (which is the intent).
        id: for the message.

    Raises:
        SlimvoxError: if the numbers of words and tags differ.
    """
    text, _, tagging = line.partition("\t")
    words, tags = text.split()[1:-1], tagging.split()[1:-1]
    if not words or len(words) != len(tags):
        raise SlimvoxError(f"Audio SNIPS: {id} has {len(words)} words, but {len(tags)} tags")
    segments: list[Segment] = []
    previous = ""
    for word, tag in zip(words, tags, strict=True):
        slot = None if tag == "O" else tag.removeprefix("B-").removeprefix("I-")
        begins = tag.startswith("B-") or (tag != previous and not tag.startswith("I-"))
        previous = tag
        plain = plain_word(word)
        if not plain:
            continue
        if segments and segments[-1].slot == slot and not (slot and begins):
            segments[-1] = Segment(text=f"{segments[-1].text} {plain}", slot=slot)
        else:
            segments.append(Segment(text=plain, slot=slot))
    return tuple(segments)


@functools.cache
def plain_word(word: str) -> str:
    """A word in capitals without accents and quotes; empty for a punctuation mark."""
    spelled = SPELLINGS.get(word, word).upper()
    letters = unicodedata.normalize("NFKD", spelled.translate(_LETTERS))
    plain = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return "" if set(plain) <= PUNCTUATION else plain
