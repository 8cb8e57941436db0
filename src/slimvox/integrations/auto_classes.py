"""Registration of slimvox's configuration and models with the Auto classes of `transformers`."""

from __future__ import annotations

import sys

AUTO_MODULE = "transformers.models.auto.modeling_auto"


def register_auto_classes() -> None:
    """Make the Auto classes of `transformers` load directories that slimvox wrote, without `trust_remote_code`.

    `import slimvox` does this if `AutoModel` or another Auto class for models has been imported before. It does not
    import them itself, because that takes seconds; call this function if slimvox is imported first. Calling it again
    changes nothing.

    Examples:
        >>> import slimvox
        >>> from transformers import AutoModel
        >>> slimvox.register_auto_classes()
        >>> model = AutoModel.from_pretrained("runs/small")
    """
    from transformers import (
        AutoConfig,
        AutoFeatureExtractor,
        AutoProcessor,
        AutoTokenizer,
        Wav2Vec2FeatureExtractor,
        WhisperFeatureExtractor,
        WhisperProcessor,
        WhisperTokenizer,
    )
    from transformers.models.auto import modeling_auto

    from slimvox.hf import heads
    from slimvox.hf.configuration import SlimvoxConfig
    from slimvox.hf.directory_format import AUTO_MAP, MODEL_TYPE, WHISPER_MODEL_TYPE
    from slimvox.hf.whisper import SlimvoxWhisperConfig, SlimvoxWhisperForConditionalGeneration

    AutoConfig.register(MODEL_TYPE, SlimvoxConfig, exist_ok=True)
    AutoFeatureExtractor.register(SlimvoxConfig, Wav2Vec2FeatureExtractor, exist_ok=True)
    for auto_class, reference in AUTO_MAP.items():
        if auto_class != "AutoConfig":
            model_class = getattr(heads, reference.rpartition(".")[2])
            getattr(modeling_auto, auto_class).register(SlimvoxConfig, model_class, exist_ok=True)
    AutoConfig.register(WHISPER_MODEL_TYPE, SlimvoxWhisperConfig, exist_ok=True)
    AutoFeatureExtractor.register(SlimvoxWhisperConfig, WhisperFeatureExtractor, exist_ok=True)
    AutoTokenizer.register(SlimvoxWhisperConfig, WhisperTokenizer, exist_ok=True)
    AutoProcessor.register(SlimvoxWhisperConfig, WhisperProcessor, exist_ok=True)
    modeling_auto.AutoModelForSpeechSeq2Seq.register(
        SlimvoxWhisperConfig, SlimvoxWhisperForConditionalGeneration, exist_ok=True
    )


def register_if_imported() -> None:
    """Register if the Auto classes for models have been imported already."""
    if AUTO_MODULE in sys.modules:
        register_auto_classes()
