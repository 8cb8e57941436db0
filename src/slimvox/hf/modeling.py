"""`SpeechEncoder` as a `transformers` model."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput
from transformers.modeling_utils import PreTrainedModel
from transformers.utils.generic import can_return_tuple

from slimvox.encoder.layer import EncoderLayer
from slimvox.encoder.model import ENCODER_MODULES, EncoderOutput, SpeechEncoder
from slimvox.encoder.position_bias import PositionBiasGate, PositionBiasTable
from slimvox.encoder.waveforms import frame_counts, frame_mask
from slimvox.hf.augmentation import spec_augment
from slimvox.hf.companions import find_origin, write_companions
from slimvox.hf.configuration import SlimvoxConfig


@dataclass
class SlimvoxOutput(BaseModelOutput):  # type: ignore[misc]
    """Output of the model; B = batch, T = frames (50 per second), D = width.

    Attributes:
        last_hidden_state: (B, T, D).
        hidden_states: layers + 1 tensors (B, T, D), if requested.
        attentions: always None; the attention weights are not materialised.
        frame_mask: (B, T) bool, true for frames of speech and false for padding.
    """

    frame_mask: Tensor = None  # type: ignore[assignment]


class CheckpointedLayer(GradientCheckpointingLayer, EncoderLayer):  # type: ignore[misc]
    """A Transformer layer that can recompute its activations in the backward pass."""


class DeferredEncoder(SpeechEncoder):
    """A `SpeechEncoder` without modules yet: `PreTrainedModel` is initialised before they are created."""

    def __init__(self) -> None:
        nn.Module.__init__(self)


class SelfContainedModel(PreTrainedModel):  # type: ignore[misc]
    """A model that is saved and pushed with the files that make its directory self-contained.

    These are the modelling code (for `trust_remote_code`), `preprocessor_config.json`, and the model card and other
    files of the directory that the model was loaded from; see `write_companions`.

    Attributes:
        origin: directory that the model was loaded from; None for a model created in memory.
    """

    origin: Path | None = None

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str] | None, *args: Any, **kwargs: Any
    ) -> Any:
        """Load as other `transformers` models are, and remember the directory.

        Args:
            pretrained_model_name_or_path: as in `PreTrainedModel.from_pretrained`.
            args: as in `PreTrainedModel.from_pretrained`.
            kwargs: as in `PreTrainedModel.from_pretrained`.
        """
        loaded = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        if pretrained_model_name_or_path is not None:
            options = {
                name: kwargs[name] for name in ("revision", "cache_dir", "subfolder") if name in kwargs
            }
            model.set_origin(find_origin(model.config.name_or_path, **options))
        return loaded

    def set_origin(self, origin: Path | None) -> None:
        """Set `origin` of the model and of the encoder in it."""
        for module in self.modules():
            if isinstance(module, SelfContainedModel):
                module.origin = origin

    @classmethod
    def register_for_auto_class(cls, auto_class: str = "AutoModel") -> None:
        """Nothing to do: `auto_map` is always written, and the code is saved by `save_pretrained`."""

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """Save as other `transformers` models do, with the files that make the directory self-contained.

        Args:
            save_directory: created if it does not exist.
            args: as in `PreTrainedModel.save_pretrained`.
            kwargs: as in `PreTrainedModel.save_pretrained`, `push_to_hub` among them.
        """
        super().save_pretrained(save_directory, *args, **kwargs)
        if kwargs.get("is_main_process", True):
            write_companions(Path(save_directory), self.config, self.origin)

    def _upload_modified_files(self, working_dir: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:
        """Replace the generic model card by ours before an upload; all uploads to the hub call this method."""
        write_companions(Path(working_dir), self.config, self.origin)
        return super()._upload_modified_files(working_dir, *args, **kwargs)


class SlimvoxPreTrainedModel(SelfContainedModel):
    """Base class of the encoder and the models with a head: loading, saving, lengths and masks."""

    config_class = SlimvoxConfig
    config: SlimvoxConfig
    base_model_prefix = "slimvox"
    main_input_name = "input_values"
    input_modalities = "audio"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False
    dtype: torch.dtype
    _no_split_modules: ClassVar[list[str]] = ["CheckpointedLayer"]
    _supports_sdpa = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, PositionBiasTable):
            init.normal_(module.weight)
        elif isinstance(module, PositionBiasGate):
            init.ones_(module.gru_rel_pos_const)
        for name, value in getattr(module, "index_values", {}).items():
            init.copy_(getattr(module, name), value)
        layer_weights = getattr(module, "layer_weights", None)
        if isinstance(layer_weights, nn.Parameter):
            init.constant_(layer_weights, 1 / len(layer_weights))

    def _get_feat_extract_output_lengths(self, input_lengths: Tensor | int) -> Tensor:
        """Number of frames for each number of samples, of any shape; 0 if a clip is too short for one frame."""
        return frame_counts(torch.as_tensor(input_lengths), self.base_model.anatomy)

    def _get_feature_vector_attention_mask(
        self, feature_vector_length: int, attention_mask: Tensor, add_adapter: bool | None = None
    ) -> Tensor:
        """`frame_mask` under the name and with the arguments that `transformers`' speech models have for it."""
        return self.frame_mask(attention_mask, feature_vector_length)

    def frame_mask(self, attention_mask: Tensor, frames: int | None = None) -> Tensor:
        """Mask of the frames that are not padding.

        Args:
            attention_mask: (batch, samples), 1 for audio and 0 for padding.
            frames: number of frames of the padded batch; computed from the samples if not given.

        Returns:
            (batch, frames) bool.
        """
        anatomy = self.base_model.anatomy
        frames = anatomy.frames(attention_mask.shape[-1]) if frames is None else frames
        return frame_mask(attention_mask, anatomy, frames)


class SlimvoxModel(SlimvoxPreTrainedModel, DeferredEncoder):  # type: ignore[misc]
    """The encoder: waveforms in, hidden states out.

    It is a `SpeechEncoder` with the interface of `transformers`' Wav2Vec2Model; `as_encoder` returns it with the
    interface of `SpeechEncoder`.
    """

    def __init__(self, config: SlimvoxConfig) -> None:
        super().__init__(config)  # type: ignore[call-arg]
        anatomy, dense = config.encoder_anatomy, config.encoder_dense_anatomy
        SpeechEncoder.__init__(self, anatomy, dense)
        self.layers = nn.ModuleList(CheckpointedLayer(anatomy, layer) for layer in anatomy.layers)
        remember_index_buffers(self)
        self._keys_to_ignore_on_load_unexpected = [
            rf"(^|\.){re.escape(name)}$" for name in sorted(self.absent_tensors)
        ]
        self.post_init()  # type: ignore[operator]

    def freeze_feature_encoder(self) -> None:
        """Exclude the convolutional front end from training."""
        self.feature_extractor.requires_grad_(False)

    def as_encoder(self) -> SpeechEncoder:
        """The same encoder with the interface of `SpeechEncoder`.

        It shares its modules and parameters with this model, so that a change to one is a change to the other.
        It applies no SpecAugment.
        """
        return encoder_view(self)

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> SlimvoxOutput:
        """Encode.

        Args:
            input_values: waveforms (batch, samples), 16 kHz, as the feature extractor gives them (raw ones are brought
                to zero mean and unit variance if the model requires it). Any floating-point type is converted to that
                of the weights.
            attention_mask: (batch, samples), 1 for audio and 0 for padding.
            output_attentions: not available; must not be true.
            output_hidden_states: whether to return all hidden states; `config.output_hidden_states` if not given.

        Raises:
            ValueError: if the shapes do not fit, there is not one frame of audio, or attentions are asked for.
        """
        if output_attentions if output_attentions is not None else self.config.output_attentions:
            raise ValueError(
                "`output_attentions` must be false: slimvox never materialises attention weights"
            )
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        output = self.encode(input_values, attention_mask)
        return SlimvoxOutput(
            last_hidden_state=output.last_hidden_state,
            hidden_states=output.hidden_states if output_hidden_states else None,
            frame_mask=output.frame_mask,
        )

    def encode(self, waveforms: Tensor, mask: Tensor | None = None) -> EncoderOutput:
        """`SpeechEncoder.forward`, in the precision of the weights, with SpecAugment in training if it is enabled."""
        waveforms = self.prepared(waveforms, mask)
        features = self.feature_extractor(waveforms, None, mask)
        if self.training:
            samples = torch.ones_like(waveforms) if mask is None else mask
            # Whisper's front end gives two windows for each frame.
            each = -(-features.shape[1] // self.anatomy.frames(waveforms.shape[1]))
            speech = self.frame_mask(samples).repeat_interleave(each, 1)[:, : features.shape[1]]
            features = spec_augment(features, speech, self.config)
        return self.transform(features, mask)


def encoder_view(model: SpeechEncoder) -> SpeechEncoder:
    """A plain `SpeechEncoder` of the modules and parameters of an encoder with another interface."""
    encoder = DeferredEncoder()
    encoder.anatomy, encoder.dense_anatomy = model.anatomy, model.dense_anatomy
    encoder.origin = model.origin
    for name in ENCODER_MODULES:
        setattr(encoder, name, getattr(model, name))
    encoder.training = model.training
    return encoder


def remember_index_buffers(model: SpeechEncoder) -> None:
    """Keep the buffers that hold indices rather than weights a second time, as `index_values` of their modules.

    These buffers are not in any file, and `from_pretrained` creates models on the meta device, where buffers lose their
    values; `_init_weights` restores them.
    """
    source: nn.Module = model
    if any(buffer.is_meta for buffer in model.buffers()):
        with torch.device("cpu"), init.no_init_weights():
            source = SpeechEncoder(model.anatomy)
    for path, module in model.named_modules():
        names = module._non_persistent_buffers_set
        values = {name: getattr(source.get_submodule(path), name) for name in sorted(names)}
        index_values = {
            name: value.detach().cpu().clone() for name, value in values.items() if value is not None
        }
        if index_values:
            module.index_values = index_values
