"""One speech encoder for wav2vec 2.0, HuBERT and WavLM, built from an anatomy."""

from slimvox.encoder.backend import record_choices, use_backend
from slimvox.encoder.model import EncoderOutput, HasEncoder, SpeechEncoder

__all__ = ["EncoderOutput", "HasEncoder", "SpeechEncoder", "record_choices", "use_backend"]
