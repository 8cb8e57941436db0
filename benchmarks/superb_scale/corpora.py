"""Corpora in the layout of SUPERB's, with as many files: hard links of a few clips of noise, and made-up labels."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

CLIP_SECONDS = 0.2
LINKS_PER_CLIP = 10_000
"""File systems limit the links of a file: ext4 to 65,000."""
WORDS = tuple(f"WORD{number}" for number in range(5000))


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """A corpus that can be made."""

    tasks: tuple[str, ...]
    files: int
    """True number of audio files."""
    make: Callable[[Path, float], None]
    """Makes a share of it in a folder."""


class Clips:
    """Makes audio files, most of which are hard links."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count, self.source = folder, 0, Path()

    def __call__(self, path: Path, *, seconds: float | None = None) -> None:
        """Make a file; one of a length of its own is not a link."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if seconds is not None:
            soundfile.write(path, _noise(seconds), 16_000)
            return
        if self.count % LINKS_PER_CLIP == 0:
            self.source = self.folder / f".clip{self.count}{path.suffix}"
            soundfile.write(self.source, _noise(CLIP_SECONDS), 16_000)
        self.count += 1
        os.link(self.source, path)


def librispeech(root: Path, share: float) -> None:
    """train-clean-100, dev-clean and test-clean, with chapters' transcripts and a lexicon of 200,000 words."""
    clip, draw = Clips(root), random.Random(0)
    base = root / "LibriSpeech"
    for first, folder, files, chapters in (
        (0, "train-clean-100", 28_539, 585),
        (1000, "dev-clean", 2703, 97),
        (2000, "test-clean", 2620, 87),
    ):
        for number, names in _dealt(round(share * files), chapters):
            chapter = first + number
            speaker = 100 + chapter // 2
            place = base / folder / str(speaker) / str(chapter)
            lines = []
            for name in names:
                clip(place / f"{speaker}-{chapter}-{name:04}.flac")
                lines.append(f"{speaker}-{chapter}-{name:04} {' '.join(draw.choices(WORDS, k=33))}")
            (place / f"{speaker}-{chapter}.trans.txt").write_text("\n".join(lines) + "\n")
    more = [f"OTHER{number}" for number in range(round(share * 195_000))]
    lexicon = "".join(f"{word}\tW ER1 D\n" for word in (*WORDS, *more))
    (root / "librispeech-lexicon.txt").write_text(lexicon)


def speech_commands(root: Path, share: float) -> None:
    """Version 0.01 and its test set."""
    clip, base = Clips(root), root / "speech_commands_v0.01"
    words = ["yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go"]
    words += [f"other{number}" for number in range(20)]
    names = []
    for place, numbers in _dealt(round(share * 64_721), 30):
        for number in numbers:
            names.append(f"{words[place]}/{number:08x}_nohash_0.wav")
            clip(base / names[-1])
    random.Random(0).shuffle(names)
    dev, test = round(share * 6798), round(share * 6835)
    (base / "validation_list.txt").write_text("\n".join(names[:dev]))
    (base / "testing_list.txt").write_text("\n".join(names[dev : dev + test]))
    for number in range(6):
        clip(base / "_background_noise_" / f"noise{number}.wav", seconds=60.5)
    for place, numbers in _dealt(round(share * 3081), 12):
        label = [*words[:10], "_unknown_", "_silence_"][place]
        for number in numbers:
            clip(root / "speech_commands_test_set_v0.01" / label / f"{number}.wav")


def quesst14(root: Path, share: float) -> None:
    """12,492 documents and 1,115 queries, a fifth of them English."""
    clip, base, draw = Clips(root), root / "quesst14Database", random.Random(0)
    documents = [f"quesst14_{number:05}" for number in range(round(share * 12_492))]
    _key(base, "utterances", [f"Audio/{name}.wav" for name in documents], clip)
    english = documents[::5]
    for split, folder, count in (("dev", "dev_queries", 560), ("eval", "eval_queries", 555)):
        queries = [f"quesst14_{split}_{number:04}" for number in range(round(share * count))]
        _key(base, split, [f"{folder}/{name}.wav" for name in queries], clip)
        listing = base / "scoring" / f"groundtruth_quesst14_{split}" / f"quesst14_{split}.rttm"
        listing.parent.mkdir(parents=True)
        pairs = itertools.product(queries, range(15))
        listing.write_text(
            "".join(f"LEXEME {draw.choice(english)} 1 0 9 {query} lex 1\n" for query, _ in pairs)
        )


def fluent_speech_commands(root: Path, share: float) -> None:
    """30,043 orders by 97 speakers."""
    clip, base, draw = Clips(root), root / "fluent_speech_commands_dataset", random.Random(0)
    (base / "data").mkdir(parents=True)
    for table, files in (("train", 23_132), ("valid", 3118), ("test", 3793)):
        rows = [",path,speakerId,transcription,action,object,location"]
        for speaker, numbers in _dealt(round(share * files), 77 if table == "train" else 10):
            for number in numbers:
                path = f"wavs/speakers/{table}{speaker}/{table}-{number}.wav"
                clip(base / path)
                labels = ",".join(f"{draw.randrange(count)}" for count in (6, 14, 4))
                rows.append(f"{len(rows)},{path},{speaker},do it,{labels}")
        (base / "data" / f"{table}_data.csv").write_text("\n".join(rows))


def voxceleb1(root: Path, share: float) -> None:
    """153,516 utterances of 22,496 videos by 1,251 speakers, and the 37,720 trials of Vox1-O."""
    clip, base, draw = Clips(root), root / "VoxCeleb1", random.Random(0)
    names: dict[int, list[str]] = {}
    speakers = max(12, round(share * 1251))
    tested = range(max(2, round(share * 40)))
    for speaker, numbers in _dealt(round(share * 153_516), speakers):
        for number in numbers:
            name = f"id1{speaker:04}/video{number // 7:05}/{number:05}.wav"
            clip(base / ("test" if speaker in tested else "dev") / "wav" / name)
            names.setdefault(speaker, []).append(name)
    codes = "1" * 9 + "23"
    listed = [f"{codes[number % 11]} {name}" for own in names.values() for number, name in enumerate(own)]
    (base / "iden_split.txt").write_text("\n".join(listed))
    trials = []
    for number in range(round(share * 37_720)):
        one = tested[number % len(tested)]
        other = one if number % 2 else draw.choice([each for each in tested if each != one])
        trials.append(f"{int(one == other)} {draw.choice(names[one])} {draw.choice(names[other])}")
    (base / "veri_test.txt").write_text("\n".join(trials))


def iemocap(root: Path, share: float) -> None:
    """10,039 turns of 151 dialogues in five sessions."""
    clip, base, draw = Clips(root), root / "IEMOCAP", random.Random(0)
    emotions = ("neu", "hap", "exc", "ang", "sad", "fru", "xxx")
    for dialogue, numbers in _dealt(round(share * 10_039), 151):
        session = base / f"Session{1 + dialogue % 5}"
        name = f"Ses0{1 + dialogue % 5}F_impro{dialogue:03}"
        lines = []
        for number in numbers:
            turn = f"{name}_F{number:03}"
            clip(session / "sentences" / "wav" / name / f"{turn}.wav")
            lines.append(f"[{number}.0 - {number}.9]\t{turn}\t{draw.choice(emotions)}\t[2.5, 2.5, 2.5]")
        listing = session / "dialog" / "EmoEvaluation" / f"{name}.txt"
        listing.parent.mkdir(parents=True, exist_ok=True)
        listing.write_text("\n".join(lines))


def libri2mix(root: Path, share: float) -> None:
    """19,900 mixtures of two speakers."""
    clip, base = Clips(root), root / "Libri2Mix_diarization"
    for split, files in (("train", 13_900), ("dev", 3000), ("test", 3000)):
        lists: dict[str, list[str]] = {"wav.scp": [], "segments": [], "utt2spk": []}
        for number in range(round(share * files)):
            name, path = f"mix{number}", root / "wavs" / split / f"{number}.wav"
            clip(path)
            lists["wav.scp"].append(f"{name} {path}")
            for speaker in "AB":
                lists["segments"].append(f"{name}_{speaker} {name} 0.0 0.15")
                lists["utt2spk"].append(f"{name}_{speaker} {name}{speaker}")
        (base / split).mkdir(parents=True)
        for name, lines in lists.items():
            (base / split / name).write_text("\n".join(lines))


def audio_snips(root: Path, share: float) -> None:
    """13,084 orders read by eight voices, and twice 700 by four others."""
    clip, base = Clips(root), root / "SNIPS"
    voices = {
        "train": (13_084, ("Ivy", "Joanna", "Joey", "Justin", "Kendra", "Kimberly", "Matthew", "Salli")),
        "valid": (700, ("Aditi", "Amy", "Geraint", "Nicole")),
        "test": (700, ("Brian", "Emma", "Raveena", "Russell")),
    }
    lines = []
    for split, (orders, names) in voices.items():
        for voice, number in itertools.product(names, range(round(share * orders))):
            name = f"{voice}-snips-{split}-{number}"
            clip(base / split / f"{name}.wav")
            lines.append(f"{name} BOS play some jazz {number} EOS\tO O O genre O PlayMusic")
    (base / "all.iob.snips.txt").write_text("\n".join(lines))


CORPORA: Mapping[str, Corpus] = {
    "LibriSpeech": Corpus(tasks=("asr", "pr"), files=33_862, make=librispeech),
    "Speech Commands": Corpus(tasks=("ks",), files=67_808, make=speech_commands),
    "QUESST 2014": Corpus(tasks=("qbe",), files=13_607, make=quesst14),
    "VoxCeleb1": Corpus(tasks=("sid", "asv"), files=153_516, make=voxceleb1),
    "Libri2Mix": Corpus(tasks=("sd",), files=19_900, make=libri2mix),
    "Fluent Speech Commands": Corpus(tasks=("ic",), files=30_043, make=fluent_speech_commands),
    "Audio SNIPS": Corpus(tasks=("sf",), files=110_272, make=audio_snips),
    "IEMOCAP": Corpus(tasks=("er",), files=10_039, make=iemocap),
}


def _dealt(files: int, groups: int) -> Iterator[tuple[int, range]]:
    """Numbers of files, dealt out evenly to at most so many groups."""
    groups = min(groups, files)
    for group in range(groups):
        yield group, range(files * group // groups, files * (group + 1) // groups)


def _key(base: Path, name: str, paths: Sequence[str], clip: Clips) -> None:
    languages = ("nnenglish", "czech", "basque", "albanian", "romanian")
    listing = base / "scoring" / f"language_key_{name}.lst"
    listing.parent.mkdir(parents=True, exist_ok=True)
    listing.write_text(
        "".join(f"quesst14Database/{path} {languages[n % 5]}\n" for n, path in enumerate(paths))
    )
    for path in paths:
        clip(base / path)


def _noise(seconds: float) -> np.ndarray:
    return 0.1 * np.random.default_rng(0).standard_normal(round(16_000 * seconds))
