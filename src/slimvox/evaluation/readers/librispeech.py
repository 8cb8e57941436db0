"""LibriSpeech: words for ASR, phones by a lexicon for PR."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from slimvox.evaluation.examples import ExampleSet, Recording, Split, TranscribedExample
from slimvox.evaluation.readers.corpus import Corpus
from slimvox.evaluation.readers.pronunciation import LEXICONS, english_pronouncer, find_lexicons, read_lexicon
from slimvox.util.errors import SlimvoxError

LIBRISPEECH = Corpus(
    name="LibriSpeech",
    folder="LibriSpeech",
    marker="train-clean-100",
    download="Download train-clean-100, dev-clean and test-clean from https://www.openslr.org/12 and unpack them",
    layout="""train-clean-100/SPEAKER/CHAPTER/SPEAKER-CHAPTER-NUMBER.flac
train-clean-100/SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt
dev-clean/...
test-clean/...""",
)
FOLDERS: Mapping[Split, str] = {"train": "train-clean-100", "dev": "dev-clean", "test": "test-clean"}

Pronouncer = Callable[[str], Sequence[str]]


def read_librispeech_words(data: Path) -> ExampleSet[TranscribedExample]:
    """ASR: unchanged transcripts, in capitals.

    Raises:
        SlimvoxError: if the corpus is missing or incomplete.
    """
    examples, skipped = _transcribed(LIBRISPEECH.find(data))
    return ExampleSet(name="LibriSpeech", examples=tuple(examples), skipped=skipped)


def read_librispeech_phones(
    data: Path, *, pronounce: Pronouncer | None = None
) -> ExampleSet[TranscribedExample]:
    """PR: phones with stress marks, each word's first pronunciation in the lexicon, no marks between words.

    Args:
        data: folder of LibriSpeech. Lexicons lie beside it or in it: `librispeech-lexicon.txt` of
            https://www.openslr.org/11, or s3prl's two `librispeech-lexicon-*-g2p.txt`, which hold all of its words.
        pronounce: word to phones, for words in no lexicon; `g2p_en`, if it is installed, when left out.

    Raises:
        SlimvoxError: if the corpus or a lexicon is missing, or if words without a pronunciation are left.
    """
    root = LIBRISPEECH.find(data)
    lexicons = find_lexicons(dict.fromkeys((data, root, root.parent)))
    if not lexicons:
        raise SlimvoxError(
            f"LibriSpeech: there is no lexicon in {data}; download librispeech-lexicon.txt from"
            f" https://www.openslr.org/11 into it (or one of {', '.join(LEXICONS[1:])})"
        )
    lexicon = read_lexicon(lexicons)
    examples, skipped = _transcribed(root)
    unknown = sorted({word for each in examples for word in each.text.split()} - lexicon.keys())
    if unknown:
        said = pronounce or english_pronouncer(unknown)
        lexicon |= {word: tuple(said(word)) for word in unknown}
    phones = [
        TranscribedExample(
            recording=each.recording,
            split=each.split,
            text=" ".join(phone for word in each.text.split() for phone in lexicon[word]),
        )
        for each in examples
    ]
    return ExampleSet(name="LibriSpeech phones", examples=tuple(phones), skipped=skipped)


def _transcribed(root: Path) -> tuple[list[TranscribedExample], dict[str, int]]:
    examples: list[TranscribedExample] = []
    without_transcript = 0
    for split, folder in FOLDERS.items():
        paths = sorted(LIBRISPEECH.need(root / folder).rglob("*.flac"))
        if not paths:
            raise LIBRISPEECH.missing(root / folder / "**/*.flac")
        transcripts: dict[str, str] = {}
        for chapter in sorted({path.parent for path in paths}):
            for listing in sorted(chapter.glob("*.trans.txt")):
                for line in LIBRISPEECH.lines(listing):
                    name, _, text = line.partition(" ")
                    transcripts[name] = text.strip()
        for path in paths:
            if transcripts.get(path.stem):
                recording = Recording.of_file(path.stem, path)
                examples.append(
                    TranscribedExample(recording=recording, split=split, text=transcripts[path.stem])
                )
            else:
                without_transcript += 1
    return examples, {"no transcript": without_transcript} if without_transcript else {}
