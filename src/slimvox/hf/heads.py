"""Task heads on the encoder, with the losses and the parameter names of `transformers`' Wav2Vec2 models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import initialization as init
from transformers.modeling_outputs import (
    CausalLMOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
    XVectorOutput,
)
from transformers.utils.generic import ModelOutput, can_return_tuple

from slimvox.encoder.model import SpeechEncoder
from slimvox.hf.configuration import SlimvoxConfig
from slimvox.hf.modeling import SlimvoxModel, SlimvoxOutput, SlimvoxPreTrainedModel


class SlimvoxWithHead(SlimvoxPreTrainedModel):
    """Base class of all models with a head.

    A head has two parts, so that it can be computed without this encoder: `head_input` selects its input from the
    hidden states, and `apply_head` computes its outputs.
    """

    output_class: ClassVar[type[ModelOutput]]
    """Class of what `forward` returns."""
    head_outputs: ClassVar[tuple[str, ...]] = ("logits",)
    """Names of what `apply_head` returns."""

    def __init__(self, config: SlimvoxConfig) -> None:
        super().__init__(config)
        self.slimvox = SlimvoxModel(config)

    def freeze_feature_encoder(self) -> None:
        """Exclude the convolutional front end from training."""
        self.slimvox.freeze_feature_encoder()

    def as_encoder(self) -> SpeechEncoder:
        """The encoder below the head, see `SlimvoxModel.as_encoder`."""
        return self.slimvox.as_encoder()

    def freeze_base_model(self) -> None:
        """Exclude the encoder from training; only the head is trained."""
        self.slimvox.requires_grad_(False)

    @property
    def fewest_frames(self) -> int:
        """Minimum number of frames that the head can read."""
        return 1

    @property
    def reads_all_states(self) -> bool:
        """True if `head_input` needs all hidden states."""
        return False

    def head_input(self, last_hidden_state: Tensor, hidden_states: Sequence[Tensor] | None) -> Tensor:
        """Input of the head, (batch, frames, width)."""
        return last_hidden_state

    def apply_head(self, states: Tensor, frame_mask: Tensor | None) -> tuple[Tensor, ...]:
        """Outputs of the head, as named in `head_outputs`.

        Args:
            states: from `head_input`.
            frame_mask: (batch, frames) bool; None if all frames are speech.
        """
        raise NotImplementedError(f"{type(self).__name__} is not a head by itself")

    def head_loss(self, outputs: tuple[Tensor, ...], labels: Tensor, frame_mask: Tensor) -> Tensor:
        """Loss of the head's outputs, a scalar.

        Args:
            outputs: from `apply_head`.
            labels: as in `forward`.
            frame_mask: (batch, frames) bool.
        """
        raise NotImplementedError(f"{type(self).__name__} is not a head by itself")

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        labels: Tensor | None = None,
    ) -> ModelOutput:
        """Outputs of the head, as its class describes them, with the loss if there are labels.

        Args:
            input_values: as in `SlimvoxModel.forward`.
            attention_mask: as in `SlimvoxModel.forward`.
            output_attentions: as in `SlimvoxModel.forward`.
            output_hidden_states: as in `SlimvoxModel.forward`.
            labels: as the class describes them.

        Raises:
            ValueError: for fewer frames than the head can read, labels beyond its range, and what
                `SlimvoxModel.forward` raises.
        """
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        output: SlimvoxOutput = self.slimvox(
            input_values,
            attention_mask,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states or self.reads_all_states,
            return_dict=True,
        )
        frames = output.frame_mask.shape[1]
        if frames < self.fewest_frames:
            raise ValueError(
                f"`input_values` must hold at least {self.fewest_frames} frames for this head, but holds {frames}"
                " instead"
            )
        states = self.head_input(output.last_hidden_state, output.hidden_states)
        outputs = self.apply_head(states, None if attention_mask is None else output.frame_mask)
        return self.output_class(
            loss=None if labels is None else self.head_loss(outputs, labels, output.frame_mask),
            **dict(zip(self.head_outputs, outputs, strict=True)),
            hidden_states=output.hidden_states if output_hidden_states else None,
        )


class SlimvoxWithLayerWeights(SlimvoxWithHead):
    """Heads that read the last hidden state or, with `use_weighted_layer_sum`, a learned mean of all of them."""

    def __init__(self, config: SlimvoxConfig) -> None:
        super().__init__(config)
        if config.use_weighted_layer_sum:
            states = config.num_hidden_layers + 1
            self.layer_weights = nn.Parameter(torch.full((states,), 1 / states))

    @property
    def reads_all_states(self) -> bool:
        """True if the layers are weighted."""
        return bool(self.config.use_weighted_layer_sum)

    def head_input(self, last_hidden_state: Tensor, hidden_states: Sequence[Tensor] | None) -> Tensor:
        """The last hidden state, or the mean of all."""
        if not self.reads_all_states:
            return last_hidden_state
        assert hidden_states is not None
        return torch.stack(list(hidden_states), dim=-1) @ self.layer_weights.softmax(-1)


class SlimvoxForCTC(SlimvoxWithHead):
    """Speech recognition by connectionist temporal classification.

    Outputs `logits` (batch, frames, vocab_size). Labels: (batch, tokens); negative ones, and the blank `pad_token_id`,
    are padding.
    """

    output_class = CausalLMOutput

    def __init__(self, config: SlimvoxConfig) -> None:
        super().__init__(config)
        self.dropout = nn.Dropout(config.final_dropout)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size)
        self.post_init()

    def apply_head(self, states: Tensor, frame_mask: Tensor | None) -> tuple[Tensor, ...]:
        """Logits (batch, frames, vocab_size)."""
        return (self.lm_head(self.dropout(states)),)

    def head_loss(self, outputs: tuple[Tensor, ...], labels: Tensor, frame_mask: Tensor) -> Tensor:
        """Connectionist temporal classification, as the configuration's `ctc_` fields have it."""
        if int(labels.max()) >= self.config.vocab_size:
            raise ValueError(
                f"labels must be below `vocab_size`, {self.config.vocab_size}, but one is {int(labels.max())} instead"
            )
        (logits,) = outputs
        blank = self.config.pad_token_id
        real = (labels >= 0) & (labels != blank)
        log_probabilities = logits.log_softmax(-1, dtype=torch.float32).transpose(0, 1)
        # cuDNN's kernel requires labels on the CPU and is not deterministic.
        with torch.backends.cudnn.flags(enabled=False):
            return F.ctc_loss(
                log_probabilities,
                labels.masked_select(real),
                frame_mask.sum(-1),
                real.sum(-1),
                blank=blank,
                reduction=self.config.ctc_loss_reduction,
                zero_infinity=self.config.ctc_zero_infinity,
            )


class SlimvoxForSequenceClassification(SlimvoxWithLayerWeights):
    """One label per clip: keywords, emotions, languages, speakers.

    Outputs `logits` (batch, num_labels). Labels: (batch,); the loss is the cross entropy.
    """

    output_class = SequenceClassifierOutput

    def __init__(self, config: SlimvoxConfig) -> None:
        super().__init__(config)
        self.projector = nn.Linear(config.hidden_size, config.classifier_proj_size)
        self.classifier = nn.Linear(config.classifier_proj_size, config.num_labels)
        self.post_init()

    def apply_head(self, states: Tensor, frame_mask: Tensor | None) -> tuple[Tensor, ...]:
        """Logits (batch, num_labels); those of a zero vector for a clip of padding only."""
        mean, _ = _statistics(self.projector(states), frame_mask)
        return (self.classifier(mean),)

    def head_loss(self, outputs: tuple[Tensor, ...], labels: Tensor, frame_mask: Tensor) -> Tensor:
        """Cross entropy."""
        return F.cross_entropy(outputs[0], labels.view(-1))


class SlimvoxForAudioFrameClassification(SlimvoxWithLayerWeights):
    """Labels for each frame, such as which speakers are active.

    Outputs `logits` (batch, frames, num_labels). Labels: (batch, frames, num_labels), one-hot; the largest decides, and
    the loss is the cross entropy.
    """

    output_class = TokenClassifierOutput

    def __init__(self, config: SlimvoxConfig) -> None:
        super().__init__(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def apply_head(self, states: Tensor, frame_mask: Tensor | None) -> tuple[Tensor, ...]:
        """Logits (batch, frames, num_labels)."""
        return (self.classifier(states),)

    def head_loss(self, outputs: tuple[Tensor, ...], labels: Tensor, frame_mask: Tensor) -> Tensor:
        """Cross entropy over all frames."""
        return F.cross_entropy(outputs[0].flatten(0, 1), labels.flatten(0, 1).argmax(-1))


class SlimvoxForXVector(SlimvoxWithLayerWeights):
    """Speaker embeddings, trained with an additive margin.

    Outputs `logits` and `embeddings`, (batch, xvector_output_dim) both. Labels: (batch,), speakers.
    """

    output_class = XVectorOutput
    head_outputs: ClassVar[tuple[str, ...]] = ("logits", "embeddings")

    def __init__(self, config: SlimvoxConfig) -> None:
        from transformers.models.wav2vec2.modeling_wav2vec2 import AMSoftmaxLoss, TDNNLayer

        super().__init__(config)
        self.projector = nn.Linear(config.hidden_size, config.tdnn_dim[0])
        self.tdnn = nn.ModuleList(TDNNLayer(config, index) for index in range(len(config.tdnn_dim)))
        self.feature_extractor = nn.Linear(config.tdnn_dim[-1] * 2, config.xvector_output_dim)
        self.classifier = nn.Linear(config.xvector_output_dim, config.xvector_output_dim)
        self.objective = AMSoftmaxLoss(config.xvector_output_dim, config.num_labels)
        self.post_init()

    @property
    def fewest_frames(self) -> int:
        """Minimum number of frames from which the layers over time give an output."""
        config = self.config
        return 1 + sum(
            (kernel - 1) * dilation
            for kernel, dilation in zip(config.tdnn_kernel, config.tdnn_dilation, strict=True)
        )

    def apply_head(self, states: Tensor, frame_mask: Tensor | None) -> tuple[Tensor, ...]:
        """Logits and embeddings, (batch, xvector_output_dim) both."""
        x = self.projector(states)
        for layer in self.tdnn:
            x = layer(x)
        mask = None
        if frame_mask is not None:
            # Number of frames left in each clip; dilation is ignored, as in `transformers`.
            left = frame_mask.sum(-1, keepdim=True) - sum(kernel - 1 for kernel in self.config.tdnn_kernel)
            mask = torch.arange(x.shape[1], device=x.device) < left.clamp(min=1)
        embeddings = self.feature_extractor(torch.cat(_statistics(x, mask), dim=-1))
        return self.classifier(embeddings), embeddings

    def head_loss(self, outputs: tuple[Tensor, ...], labels: Tensor, frame_mask: Tensor) -> Tensor:
        """Softmax with an additive margin."""
        loss: Tensor = self.objective(outputs[0], labels)
        return loss

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self.objective:
            init.normal_(self.objective.weight)


def _statistics(x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over time, (batch, channels) both, of x (batch, time, channels).

    Only frames where `mask` (batch, time) is true count, if there is a mask; the result is zero for clips with too few
    frames.
    """
    if mask is None:
        mask = torch.ones_like(x[..., 0], dtype=torch.bool)
    counted = mask.unsqueeze(-1).to(x.dtype)
    count = mask.sum(1, keepdim=True)
    mean = (x * counted).sum(1) / count.clamp(min=1)
    variance = ((x - mean.unsqueeze(1)).square() * counted).sum(1) / (count - 1).clamp(min=1)
    # The square root has no gradient at zero variance.
    deviation = variance.clamp(min=torch.finfo(x.dtype).tiny).sqrt()
    return mean, deviation
