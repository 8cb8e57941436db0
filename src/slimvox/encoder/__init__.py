"""One speech encoder for all of `slimvox.families`, built from an anatomy."""

from slimvox.encoder.backend import record_choices, use_backend
from slimvox.encoder.model import EncoderOutput, HasEncoder, SpeechEncoder

__all__ = ["EncoderOutput", "HasEncoder", "SpeechEncoder", "record_choices", "use_backend"]
