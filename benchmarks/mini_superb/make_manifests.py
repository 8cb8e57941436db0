"""Choose the recordings, splits and labels of mini-SUPERB; the tables are committed, the audio is not.

    python benchmarks/mini_superb/make_manifests.py --data DIR

DIR holds the folders so762, s2i, wake, arabic and emodb, each with its `manifest.tsv` and ID.opus. The tables go to
src/slimvox/evaluation/mini/. Everything random is drawn from fixed seeds: the same data gives the same tables.
"""

from __future__ import annotations

import argparse
import csv
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from slot_order import locate, spoken_order, usual_order

from slimvox.audio import read_audio
from slimvox.structures.anatomy import SAMPLE_RATE_HZ

OUT = Path(__file__).parents[2] / "src" / "slimvox" / "evaluation" / "mini"
TRANSCRIPTS = Path(__file__).with_name("coffee_transcripts.tsv")
"""Transcripts of the coffee orders by a recogniser, see `transcribe_orders.py`."""
SLOTS = ("numberOfShots", "size", "roast", "coffeeDrink", "milkAmount", "sugarAmount")
INTENT_SLOTS = ("numberOfShots", "roast", "coffeeDrink")
"""Three, as in Fluent Speech Commands, each of few values; the others have up to thirty that hardly occur."""
SPARE_SECONDS = 0.15
"""Kept before and after the speech of a clip."""
EMOTION_FOLDS, INTENT_FOLDS, SPEAKER_FOLDS = 5, 5, 4
QUERIES_PER_WORD, DOCUMENT_CLIPS_PER_WORD = 10, 20
"""Per split. With 3 queries, the choice of the hidden state on dev was left to chance."""
LABELS_OF_SPLITS = {"train": "train", "val": "dev", "test": "test"}
Row = dict[str, str]


def main() -> None:
    """Write all tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the sets")
    data = parser.parse_args().data
    so762, s2i, wake, arabic, emodb = (
        _rows(data, name) for name in ("so762", "s2i", "wake", "arabic", "emodb")
    )
    OUT.mkdir(parents=True, exist_ok=True)
    recognition(data, so762)
    keywords(data, arabic, wake)
    speakers(data, so762)
    verification(data, so762)
    coffee(data, s2i)
    emotions(emodb)
    conversations(data, so762)
    searches(data, arabic)


def recognition(data: Path, rows: list[Row]) -> None:
    """PR and ASR: read English; no speaker in two splits."""
    chosen = _by_speakers(rows, train=(100, 4), dev=(20, 3), test=(60, 2), seed=1)
    phones, words = [], []
    for split, row in chosen:
        place = {**_speech(data, "so762", row), "split": split}
        speaker = {"speaker": _speaker("so762", row)}
        # Stress marks off: 39 phones.
        symbols = [phone.rstrip("012") for phone in row["phones"].split() if phone != "|"]
        phones.append({**place, "text": " ".join(symbols), **speaker})
        words.append({**place, "text": row["text"], **speaker})
    _write("pr", phones)
    _write("asr", words)


def keywords(data: Path, arabic: list[Row], wake: list[Row]) -> None:
    """KS: 20 Arabic commands by unseen speakers, and 6 English phrases whose speakers are not named."""
    draw, table = random.Random(2), []
    counts = {"train": 25, "dev": 6, "test": 14}
    for (keyword, name), group in sorted(_groups(arabic, "keyword", "split").items()):
        split = LABELS_OF_SPLITS[name]
        for row in draw.sample(group, counts[split]):
            label, speaker = f"arabic {keyword}", _speaker("arabic", row)
            table.append({**_speech(data, "arabic", row), "split": split, "label": label, "speaker": speaker})
    for (keyword,), group in sorted(_groups(wake, "keyword").items()):
        picked = draw.sample(group, 45)
        for split, part in (("train", picked[:25]), ("dev", picked[25:31]), ("test", picked[31:])):
            table += [
                {**_speech(data, "wake", row), "split": split, "label": keyword, "speaker": ""}
                for row in part
            ]
    _write("ks", table)


def speakers(data: Path, rows: list[Row]) -> None:
    """SID: folds, each with utterances of every speaker; each utterance through a channel of its own.

    In folds all twelve utterances of a speaker are tested, in place of four, on the same encoded features.
    """
    draw, table = random.Random(3), []
    groups = sorted(_groups(rows, "speaker").items())
    for (speaker,), group in sorted(draw.sample(groups, 50)):
        picked = draw.sample(group, 12)
        for place, row in enumerate(picked):
            split = str(place % SPEAKER_FOLDS + 1)
            table.append({**_speech(data, "so762", row), "split": split, "label": speaker})
    _write("sid", [{**row, "speaker": f"so762-{row['label']}"} for row in _with_channels(table, draw)])


def verification(data: Path, rows: list[Row]) -> None:
    """ASV: no speaker in two splits; the trials are drawn from dev and test when the table is read."""
    chosen = _by_speakers(rows, train=(95, 16), dev=(30, 6), test=(100, 8), seed=4)
    table = [{**_speech(data, "so762", r), "split": split, "label": r["speaker"]} for split, r in chosen]
    table = _with_channels(table, random.Random(9))
    _write("asv", [{**row, "speaker": f"so762-{row['label']}"} for row in table])


def coffee(data: Path, rows: list[Row]) -> None:
    """IC and SF: coffee orders, in folds for IC. The speakers are not named, so they may be in several splits.

    The slots of SF stand in the order of speech, as a recogniser heard it (`slot_order.py`).
    """
    with TRANSCRIPTS.open(encoding="utf-8", newline="") as file:
        texts = {
            row["id"]: row["text"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        }
    filled = {row["id"]: {slot: row[slot] for slot in SLOTS if row[slot]} for row in rows}
    heard = {id: locate(slots, texts[id]) for id, slots in filled.items()}
    usual = usual_order(tuple(heard.values()), SLOTS)
    found, wanted = sum(len(each.places) for each in heard.values()), sum(map(len, filled.values()))
    print(f"coffee: {found} of {wanted} slot values were heard; the usual order is {', '.join(usual)}")
    intents, slots = [], []
    for index, row in enumerate(random.Random(5).sample(rows, len(rows))):
        split = "train" if index < 420 else "dev" if index < 480 else "test"
        place = {**_speech(data, "s2i", row), "split": split}
        fold = {"split": str(index % INTENT_FOLDS + 1)}
        intents.append({**place, **fold, **{f"label_{slot}": row[slot] for slot in INTENT_SLOTS}})
        own = filled[row["id"]]
        order = spoken_order(own, heard[row["id"]], usual)
        slots.append({**place, "text": " ".join(f"[{slot}: {own[slot]}]" for slot in order)})
    _write("ic", intents)
    _write("sf", slots)


def emotions(rows: list[Row]) -> None:
    """ER: five folds; each tests on two speakers, chooses on the next two, and trains on six."""
    people = sorted({row["speaker"] for row in rows})
    random.Random(6).shuffle(people)
    pairs = [set(people[index : index + 2]) for index in range(0, len(people), 2)]
    folds = {speaker: str(number) for number, pair in enumerate(pairs, 1) for speaker in pair}
    assert len(pairs) == EMOTION_FOLDS
    table = [
        {
            "path": _path("emodb", row),
            "split": folds[row["speaker"]],
            "label": row["emotion"],
            "speaker": _speaker("emodb", row),
        }
        for row in rows
    ]
    _write("er", table)


def conversations(data: Path, rows: list[Row]) -> None:
    """SD: two speakers, two utterances each, laid so that some overlap; all of it is kept (`max`)."""
    draw, table = random.Random(7), []
    chosen = _by_speakers(rows, train=(100, 10), dev=(20, 10), test=(60, 10), seed=7)
    for split, count in (("train", 80), ("dev", 20), ("test", 40)):
        own = defaultdict(list)
        for name, row in chosen:
            if name == split:
                own[row["speaker"]].append(row)
        for number in range(count):
            pair = draw.sample(sorted(own), 2)
            draw.shuffle(pair)
            clips, turns, at = [], [], 0.0
            for row in (
                each for two in zip(*(draw.sample(own[p], 2) for p in pair), strict=True) for each in two
            ):
                samples = read_audio(data / _path("so762", row))
                begin, end = speech_bounds(samples)
                gain = 0.05 / max(float(np.sqrt(np.mean(samples**2))), 1e-4) * draw.uniform(0.7, 1.4)
                clips.append(f"{_path('so762', row)}@{at:.2f}*{gain:.2f}")
                turns.append(f"{row['speaker']} {at + begin:.2f}-{at + end:.2f}")
                # The next one starts up to 1.2 s before this one's end, or up to 0.6 s after it.
                at = max(0.0, round(at + end + draw.uniform(-1.2, 0.6), 2))
            table.append(
                {
                    "id": f"{split}-{number:03d}",
                    "path": " + ".join(clips),
                    "split": split,
                    "turns": "; ".join(turns),
                }
            )
    _write("sd", table)


def searches(data: Path, rows: list[Row]) -> None:
    """QbE: spoken keywords to be found in documents of two words by other speakers; dev and test have their own.

    Each clip is in one document, so that a term is in a tenth of them: with terms in many documents nearly all that
    the term-weighted value counts is false alarms.

    Args:
        data: where the sets are.
        rows: of the Arabic commands.
    """
    draw, table = random.Random(8), []
    terms = sorted({row["keyword"] for row in rows})
    for name in ("val", "test"):
        split = LABELS_OF_SPLITS[name]
        own = _groups([row for row in rows if row["split"] == name], "keyword")
        people = sorted({row["speaker"] for group in own.values() for row in group})
        asking = set(people[: len(people) // 2])
        for term in terms:
            for row in draw.sample([r for r in own[(term,)] if r["speaker"] in asking], QUERIES_PER_WORD):
                begin, end = speech_bounds(read_audio(data / _path("arabic", row)))
                table.append(
                    {
                        "id": f"{split}-query-{row['id']}",
                        "path": _path("arabic", row),
                        "split": split,
                        "start_seconds": f"{begin:.2f}",
                        "end_seconds": f"{end:.2f}",
                        "role": "query",
                        "label": term,
                        "speaker": _speaker("arabic", row),
                    }
                )
        clips = [
            row
            for term in terms
            for row in draw.sample(
                [r for r in own[(term,)] if r["speaker"] not in asking], DOCUMENT_CLIPS_PER_WORD
            )
        ]
        for number, pair in enumerate(_pairs(clips, draw)):
            table.append(
                {
                    "id": f"{split}-document-{number:03d}",
                    "path": " + ".join(f"{_path('arabic', row)}@{place}" for place, row in enumerate(pair)),
                    "split": split,
                    "start_seconds": "",
                    "end_seconds": "",
                    "role": "document",
                    "label": "|".join(row["keyword"] for row in pair),
                    "speaker": "",
                }
            )
    _write("qbe", table)


def _pairs(clips: list[Row], draw: random.Random) -> list[tuple[Row, Row]]:
    """All clips in pairs of different words: dealt again, some thousand times, until no word meets itself."""
    while True:
        order = draw.sample(clips, len(clips))
        pairs = list(zip(order[::2], order[1::2], strict=True))
        if all(first["keyword"] != second["keyword"] for first, second in pairs):
            return pairs


def speech_bounds(samples: np.ndarray, *, spare: float = 0.05) -> tuple[float, float]:
    """Beginning and end of the speech of an utterance in seconds: within 30 dB of its loudest 20 ms."""
    window = SAMPLE_RATE_HZ // 50
    count = len(samples) // window
    energy = np.square(samples[: count * window].reshape(count, window)).mean(1)
    loud = np.flatnonzero(energy > energy.max() * 1e-3)
    begin, end = loud[0] * 0.02 - spare, (loud[-1] + 1) * 0.02 + spare
    return max(0.0, float(begin)), min(len(samples) / SAMPLE_RATE_HZ, float(end))


def _with_channels(table: Sequence[Row], draw: random.Random) -> list[Row]:
    """Each row with the seed of a recording channel of its own."""
    seeds = draw.sample(range(1 << 31), len(table))
    return [{**row, "channel_seed": str(seed)} for row, seed in zip(table, seeds, strict=True)]


def _by_speakers(
    rows: list[Row], *, train: tuple[int, int], dev: tuple[int, int], test: tuple[int, int], seed: int
) -> list[tuple[str, Row]]:
    """So many speakers with so many utterances each; test speakers from the set's own test part."""
    draw, chosen = random.Random(seed), []
    parts = {
        name: sorted(_groups([row for row in rows if row["split"] == name], "speaker").items())
        for name in ("train", "test")
    }
    training = draw.sample(parts["train"], train[0] + dev[0])
    testing = draw.sample(parts["test"], test[0])
    for split, groups, each in (
        ("train", training[: train[0]], train[1]),
        ("dev", training[train[0] :], dev[1]),
        ("test", testing, test[1]),
    ):
        for _, group in sorted(groups, key=lambda pair: pair[0]):
            chosen += [(split, row) for row in draw.sample(group, each)]
    return chosen


def _groups(rows: Iterable[Row], *columns: str) -> dict[tuple[str, ...], list[Row]]:
    groups: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        groups[tuple(row[column] for column in columns)].append(row)
    return groups


def _rows(data: Path, name: str) -> list[Row]:
    with (data / name / "manifest.tsv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def _speech(data: Path, name: str, row: Row) -> Row:
    """The columns of a clip without the silence at its ends."""
    begin, end = speech_bounds(read_audio(data / _path(name, row)), spare=SPARE_SECONDS)
    return {"path": _path(name, row), "start_seconds": f"{begin:.2f}", "end_seconds": f"{end:.2f}"}


def _speaker(name: str, row: Row) -> str:
    return f"{name}-{row['speaker']}"


def _path(name: str, row: Row) -> str:
    return f"{name}/{row['id']}.opus"


def _write(name: str, table: Sequence[Row]) -> None:
    with (OUT / f"{name}.tsv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(
            file, table[0].keys(), delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONE
        )
        writer.writeheader()
        writer.writerows(table)
    print(f"{name}: {len(table)} rows")


if __name__ == "__main__":
    main()
