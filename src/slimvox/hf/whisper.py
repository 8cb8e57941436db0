"""Whisper with a pruned encoder, as a `transformers` model: decoder, `generate` and timestamps are Whisper's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.whisper.configuration_whisper import WhisperConfig
from transformers.models.whisper.modeling_whisper import (
    WhisperDecoder,
    WhisperForConditionalGeneration,
    WhisperModel,
    WhisperPreTrainedModel,
)

from slimvox.encoder.log_mel import MelFeatureExtractor
from slimvox.encoder.model import SpeechEncoder
from slimvox.hf.configuration import DescribesEncoder, check_format_version
from slimvox.hf.directory_format import FORMAT_VERSION, WHISPER_AUTO_MAP, WHISPER_MODEL_TYPE
from slimvox.hf.modeling import (
    CheckpointedLayer,
    DeferredEncoder,
    SelfContainedModel,
    encoder_view,
    remember_index_buffers,
)


class SlimvoxWhisperConfig(DescribesEncoder, WhisperConfig):  # type: ignore[misc]
    """Configuration of Whisper with a pruned encoder: the fields of the dense model, and the encoder's anatomy.

    An object's `model_type` is `whisper`, by which the speech recognition pipeline of `transformers` chooses what it
    does with chunks and timestamps; that of the class, which is written to `config.json`, is slimvox's own.

    Args:
        anatomy: `EncoderAnatomy.to_dict()` of the encoder.
        dense_anatomy: the same of the encoder that it was pruned from. Its own anatomy if not given.
        format_version: of the directory.
        kwargs: the fields of `WhisperConfig`.

    Raises:
        ValueError: if the format is of a newer slimvox.
    """

    model_type: ClassVar[str] = WHISPER_MODEL_TYPE

    def __init__(
        self,
        *,
        anatomy: Mapping[str, Any] | None = None,
        dense_anatomy: Mapping[str, Any] | None = None,
        format_version: int = FORMAT_VERSION,
        **kwargs: Any,
    ) -> None:
        check_format_version(format_version)
        kwargs["auto_map"] = dict(WHISPER_AUTO_MAP)
        super().__init__(**kwargs)
        self.format_version = format_version
        self.anatomy = None if anatomy is None else dict(anatomy)
        self.dense_anatomy = self.anatomy if dense_anatomy is None else dict(dense_anatomy)
        self.__dict__["model_type"] = "whisper"


class SlimvoxWhisperPreTrainedModel(SelfContainedModel, WhisperPreTrainedModel):  # type: ignore[misc]
    """Base class with the methods that create and load the parts of the encoder."""

    config_class = SlimvoxWhisperConfig
    _no_split_modules: ClassVar[list[str]] = ["CheckpointedLayer", "WhisperDecoderLayer"]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        for name, value in getattr(module, "index_values", {}).items():
            init.copy_(getattr(module, name), value)


class SlimvoxWhisperEncoder(SlimvoxWhisperPreTrainedModel, DeferredEncoder):  # type: ignore[misc]
    """The encoder with the interface of `WhisperEncoder`: spectrograms in, hidden states out.

    `as_encoder` gives it the interface of `SpeechEncoder`, which reads waveforms.
    """

    def __init__(self, config: SlimvoxWhisperConfig) -> None:
        super().__init__(config)  # type: ignore[call-arg]
        anatomy = config.encoder_anatomy
        SpeechEncoder.__init__(self, anatomy, config.encoder_dense_anatomy)
        self.layers = nn.ModuleList(CheckpointedLayer(anatomy, layer) for layer in anatomy.layers)
        remember_index_buffers(self)
        self.post_init()  # type: ignore[operator]

    def as_encoder(self) -> SpeechEncoder:
        """The same encoder, with the same parameters, with the interface of `SpeechEncoder`."""
        return encoder_view(self)

    @property
    def conv1(self) -> nn.Conv1d:
        """The first convolution; Whisper's `generate` reads the strides of both."""
        convolution: Any = self.feature_extractor.conv_layers[0].conv
        return cast(nn.Conv1d, convolution)

    @property
    def conv2(self) -> nn.Conv1d:
        """The second convolution."""
        return cast(nn.Conv1d, self.feature_projection.projection)

    def _freeze_parameters(self) -> None:
        self.requires_grad_(False)

    def forward(  # type: ignore[override]
        self,
        input_features: Tensor,
        attention_mask: Tensor | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutput:
        """Encode.

        Args:
            input_features: (batch, bins, windows), of up to `2 * config.max_source_positions` windows. Unlike Whisper's
                own, this encoder also takes fewer of them.
            attention_mask: ignored, as in Whisper's own encoder.
            output_hidden_states: whether to return all hidden states.
            kwargs: further arguments of `WhisperEncoder`, ignored.

        Raises:
            ValueError: if there are more windows than the model has positions for.
        """
        most = 2 * self.anatomy.position_table
        if input_features.shape[-1] > most:
            raise ValueError(
                f"`input_features` must hold at most {most} windows, but holds {input_features.shape[-1]} instead"
            )
        extractor = cast(MelFeatureExtractor, self.feature_extractor)
        output = self.transform(extractor.convolved(input_features))
        return BaseModelOutput(
            last_hidden_state=output.last_hidden_state,
            hidden_states=output.hidden_states if output_hidden_states else None,
        )


class SlimvoxWhisperModel(SlimvoxWhisperPreTrainedModel, WhisperModel):  # type: ignore[misc]
    """Pruned encoder and Whisper's decoder."""

    def __init__(self, config: SlimvoxWhisperConfig) -> None:
        WhisperPreTrainedModel.__init__(self, config)
        self.encoder = SlimvoxWhisperEncoder(config)
        self.decoder = WhisperDecoder(config)
        self.post_init()


class SlimvoxWhisperForConditionalGeneration(SlimvoxWhisperPreTrainedModel, WhisperForConditionalGeneration):  # type: ignore[misc]
    """Speech recognition: `generate`, timestamps and long recordings as with `WhisperForConditionalGeneration`."""

    def __init__(self, config: SlimvoxWhisperConfig) -> None:
        WhisperPreTrainedModel.__init__(self, config)
        self.model = SlimvoxWhisperModel(config)
        self.proj_out = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.max_target_positions = config.max_target_positions
        self.post_init()

    def as_encoder(self) -> SpeechEncoder:
        """The encoder, with the same parameters, with the interface of `SpeechEncoder`."""
        return self.model.encoder.as_encoder()
