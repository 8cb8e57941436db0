"""Transcripts of clips by a whole Whisper, with the time that its encoder and its decoder take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from slimvox.audio.decode import FloatArray
from slimvox.checkpoint.decoder import has_decoder
from slimvox.checkpoint.json_fields import read_json
from slimvox.evaluation.features import Stopwatch
from slimvox.evaluation.upstreams import EncoderUpstream, Upstream
from slimvox.exporters.decoder import load_whisper
from slimvox.structures.anatomy import SAMPLE_RATE_HZ
from slimvox.util.errors import SlimvoxError
from slimvox.util.timing import wait_for

ENGLISH = "en"
TOKENIZER_FILES = ("tokenizer.json", "vocab.json")


class Transcriber:
    """An encoder with the decoder of the Whisper that it comes from, decoding greedily and without timestamps.

    Dense and pruned encoders are computed by the same code, so that their times can be compared.

    Attributes:
        directory: directory of the decoder.
        window: number of samples to which clips are padded.
        encoding: time spent on spectrograms and the encoder.
        decoding: time spent on tokens and text.
    """

    def __init__(
        self,
        encode: Callable[[Tensor], Tensor],
        directory: Path,
        *,
        device: torch.device,
        bf16: bool = False,
        window_seconds: float | None = None,
        most_tokens: int = 224,
    ) -> None:
        """Load the decoder.

        Args:
            encode: waveforms (batch, samples) to the last hidden states (batch, frames, width).
            directory: a Whisper with its decoder, dense or pruned.
            device: device of the decoder, on which the waveforms are given to `encode` too.
            bf16: whether the decoder computes in bfloat16.
            window_seconds: length to which clips are padded with silence; by default that of the model's window, 30 s.
            most_tokens: maximum number of tokens of a clip.

        Raises:
            SlimvoxError: if the model has no tokenizer, or no window of this length.
        """
        from transformers import WhisperTokenizer

        if not any((directory / name).is_file() for name in TOKENIZER_FILES):
            raise SlimvoxError(f"{directory} has no tokenizer: copy tokenizer.json of the dense model there")
        self.directory = directory
        self._encode, self._device, self._most_tokens = encode, device, most_tokens
        self._dtype = torch.bfloat16 if bf16 else torch.float32
        self._whisper = load_whisper(directory).to(device=device, dtype=self._dtype)
        self._whisper.model.encoder.layers = torch.nn.ModuleList()  # `encode` takes its place
        longest = 2 * 160 * self._whisper.config.max_source_positions
        self.window = longest if window_seconds is None else round(window_seconds * SAMPLE_RATE_HZ)
        if not 0 < self.window <= longest:
            raise SlimvoxError(
                f"the window must be at most {longest / SAMPLE_RATE_HZ:g} s, that of the model, but is"
                f" {self.window / SAMPLE_RATE_HZ:g} s instead"
            )
        self._tokenizer: Any = WhisperTokenizer.from_pretrained(directory)
        self.encoding, self.decoding = Stopwatch(), Stopwatch()

    @torch.inference_mode()
    def __call__(self, waveforms: Sequence[FloatArray], language: str | None) -> list[str]:
        """Transcribe clips in one batch.

        Args:
            waveforms: (samples,) each, at 16 kHz, no longer than the window.
            language: code of the language, such as `en`; None to let the model find it for each clip.

        Raises:
            SlimvoxError: if the model does not know the language.
        """
        padded = [F.pad(torch.from_numpy(each), (0, self.window - len(each))) for each in waveforms]
        with self.encoding.running():
            states = self._encode(torch.stack(padded).to(self._device)).to(self._dtype)
            wait_for(self._device)
        with self.decoding.running():
            tokens = self._tokens(states, language)
            texts: list[str] = self._tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [text.strip() for text in texts]

    def _tokens(self, states: Tensor, language: str | None) -> Tensor:
        """Tokens of encoded windows, without the prompt.

        Whisper's own `generate` would look for further segments in the same window where a model writes timestamps
        although it was told not to; here nothing but words can be written.
        """
        from transformers import GenerationMixin
        from transformers.modeling_outputs import BaseModelOutput

        model, settings = self._whisper, self._whisper.generation_config
        encoded = BaseModelOutput(last_hidden_state=states)
        prompt = torch.full((len(states), 1), settings.decoder_start_token_id, device=self._device)
        if getattr(settings, "is_multilingual", True):
            known = settings.lang_to_id
            if language is None:
                spoken = model.detect_language(encoder_outputs=encoded, generation_config=settings)
            elif f"<|{language}|>" in known:
                spoken = torch.full((len(states),), known[f"<|{language}|>"], device=self._device)
            else:
                codes = ", ".join(sorted(code.strip("<|>") for code in known))
                raise SlimvoxError(f"the model has no language {language!r}; it has {codes}")
            task = torch.full_like(spoken, settings.task_to_id["transcribe"])
            prompt = torch.cat([prompt, spoken[:, None], task[:, None]], 1)
        no_timestamps: int = settings.no_timestamps_token_id
        prompt = F.pad(prompt, (0, 1), value=no_timestamps)
        timestamps = range(no_timestamps + 1, model.config.vocab_size)
        found: Tensor = GenerationMixin.generate(
            model,
            encoder_outputs=encoded,
            decoder_input_ids=prompt,
            suppress_tokens=[*(settings.suppress_tokens or ()), *timestamps],
            max_length=None,
            max_new_tokens=min(self._most_tokens, model.config.max_target_positions - prompt.shape[1]),
            num_beams=1,
            do_sample=False,
        )
        return found[:, prompt.shape[1] :]


def transcriber_of(upstream: Upstream, **options: Any) -> Transcriber:
    """The transcriber of a model to evaluate: an encoder loaded from a directory, or a file exported next to one.

    Args:
        upstream: the model.
        options: further arguments of `Transcriber`.

    Raises:
        SlimvoxError: if the model has no decoder.
    """
    bf16 = isinstance(upstream, EncoderUpstream) and upstream.bf16
    if isinstance(upstream, EncoderUpstream):
        encoder = upstream.encoder
        directory = encoder.origin

        def encode(waveforms: Tensor) -> Tensor:
            with torch.autocast(waveforms.device.type, torch.bfloat16, enabled=bf16):
                states: Tensor = encoder(waveforms).last_hidden_state
            return states
    else:
        directory = Path(upstream.name).parent

        def encode(waveforms: Tensor) -> Tensor:
            return upstream(waveforms)[:, :, -1]

    if directory is None or not has_decoder(directory):
        raise SlimvoxError(
            f"transcription needs a Whisper with its decoder, which {upstream.name} is not: give the directory, or the"
            " name on the Hugging Face hub, of a whole Whisper"
        )
    return Transcriber(encode, directory, device=upstream.device, bf16=bf16, **options)


def normalizer(language: str | None, directory: Path | None = None) -> Callable[[str], str]:
    """Whisper's own normalisation of transcripts before words are counted: English, or that for all other languages.

    Args:
        language: code of the language; None for unknown.
        directory: model with a table of British and American spellings (`normalizer.json`), if there is one.
    """
    from transformers.models.whisper.english_normalizer import BasicTextNormalizer, EnglishTextNormalizer

    if language != ENGLISH:
        basic: Callable[[str], str] = BasicTextNormalizer()
        return basic
    file = None if directory is None else directory / "normalizer.json"
    english: Callable[[str], str] = EnglishTextNormalizer(
        read_json(file) if file is not None and file.is_file() else {}
    )
    return english
