"""Task heads on the encoder, with the losses and the parameter names of `transformers`' Wav2Vec2 models."""

from __future__ import annotations

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
from transformers.utils.generic import can_return_tuple

from slimvox.integrations.transformers.configuration import SlimvoxConfig
from slimvox.integrations.transformers.modeling import SlimvoxModel, SlimvoxOutput, SlimvoxPreTrainedModel


class SlimvoxWithHead(SlimvoxPreTrainedModel):
    """What all models with a head share."""

    def __init__(self, config: SlimvoxConfig) -> None:
        super().__init__(config)
        self.slimvox = SlimvoxModel(config)

    def freeze_feature_encoder(self) -> None:
        """Leave the convolutional front end out of training."""
        self.slimvox.freeze_feature_encoder()

    def freeze_base_model(self) -> None:
        """Leave the encoder out of training; only the head learns."""
        self.slimvox.requires_grad_(False)


class SlimvoxWithLayerWeights(SlimvoxWithHead):
    """Heads that read the last hidden state or, with `use_weighted_layer_sum`, a learned mean of all of them."""

    def __init__(self, config: SlimvoxConfig) -> None:
        super().__init__(config)
        if config.use_weighted_layer_sum:
            states = config.num_hidden_layers + 1
            self.layer_weights = nn.Parameter(torch.full((states,), 1 / states))

    def _encode(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None,
        output_attentions: bool | None,
        output_hidden_states: bool | None,
    ) -> tuple[Tensor, SlimvoxOutput]:
        """What the head reads, (batch, frames, width), and the encoder's output as the caller wants to see it."""
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        weighted = self.config.use_weighted_layer_sum
        output: SlimvoxOutput = self.slimvox(
            input_values,
            attention_mask,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states or weighted,
            return_dict=True,
        )
        if not weighted:
            return output.last_hidden_state, output
        states = torch.stack(output.hidden_states, dim=-1)
        if not output_hidden_states:
            output.hidden_states = None
        return states @ self.layer_weights.softmax(-1), output


class SlimvoxForCTC(SlimvoxWithHead):
    """Speech recognition by connectionist temporal classification."""

    def __init__(self, config: SlimvoxConfig) -> None:
        super().__init__(config)
        self.dropout = nn.Dropout(config.final_dropout)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size)
        self.post_init()

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        labels: Tensor | None = None,
    ) -> CausalLMOutput:
        """Logits over the vocabulary, (batch, frames, vocab_size), and the loss if there are labels.

        Args:
            input_values: as in `SlimvoxModel.forward`.
            attention_mask: as in `SlimvoxModel.forward`.
            output_attentions: as in `SlimvoxModel.forward`.
            output_hidden_states: as in `SlimvoxModel.forward`.
            labels: (batch, tokens); negative ones, and the blank `pad_token_id`, are padding.

        Raises:
            ValueError: if a label is not below `vocab_size`, and what `SlimvoxModel.forward` raises.
        """
        if labels is not None and int(labels.max()) >= self.config.vocab_size:
            raise ValueError(
                f"labels must be below `vocab_size`, {self.config.vocab_size}, but one is {int(labels.max())} instead"
            )
        output: SlimvoxOutput = self.slimvox(
            input_values,
            attention_mask,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        logits = self.lm_head(self.dropout(output.last_hidden_state))
        loss = None if labels is None else self._loss(logits, labels, output.frame_mask)
        return CausalLMOutput(loss=loss, logits=logits, hidden_states=output.hidden_states)

    def _loss(self, logits: Tensor, labels: Tensor, frame_mask: Tensor) -> Tensor:
        blank = self.config.pad_token_id
        real = (labels >= 0) & (labels != blank)
        log_probabilities = logits.log_softmax(-1, dtype=torch.float32).transpose(0, 1)
        # cuDNN's kernel wants labels on the CPU and is not deterministic.
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
    """One label a clip: keywords, emotions, languages, speakers."""

    def __init__(self, config: SlimvoxConfig) -> None:
        super().__init__(config)
        self.projector = nn.Linear(config.hidden_size, config.classifier_proj_size)
        self.classifier = nn.Linear(config.classifier_proj_size, config.num_labels)
        self.post_init()

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        labels: Tensor | None = None,
    ) -> SequenceClassifierOutput:
        """Logits (batch, num_labels), and the cross entropy if there are labels.

        Args:
            input_values: as in `SlimvoxModel.forward`.
            attention_mask: as in `SlimvoxModel.forward`.
            output_attentions: as in `SlimvoxModel.forward`.
            output_hidden_states: as in `SlimvoxModel.forward`.
            labels: (batch,).
        """
        states, output = self._encode(input_values, attention_mask, output_attentions, output_hidden_states)
        speech = output.frame_mask.unsqueeze(-1).to(states.dtype)
        pooled = (self.projector(states) * speech).sum(1) / speech.sum(1).clamp(min=1)
        logits = self.classifier(pooled)
        loss = None if labels is None else F.cross_entropy(logits, labels.view(-1))
        return SequenceClassifierOutput(loss=loss, logits=logits, hidden_states=output.hidden_states)


class SlimvoxForAudioFrameClassification(SlimvoxWithLayerWeights):
    """Labels a frame: who speaks when."""

    def __init__(self, config: SlimvoxConfig) -> None:
        super().__init__(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> TokenClassifierOutput:
        """Logits (batch, frames, num_labels), and the cross entropy if there are labels.

        Args:
            input_values: as in `SlimvoxModel.forward`.
            attention_mask: as in `SlimvoxModel.forward`.
            labels: (batch, frames, num_labels), one-hot; the largest decides.
            output_attentions: as in `SlimvoxModel.forward`.
            output_hidden_states: as in `SlimvoxModel.forward`.
        """
        states, output = self._encode(input_values, attention_mask, output_attentions, output_hidden_states)
        logits = self.classifier(states)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(0, 1).argmax(-1))
        return TokenClassifierOutput(loss=loss, logits=logits, hidden_states=output.hidden_states)


class SlimvoxForXVector(SlimvoxWithLayerWeights):
    """Speaker embeddings, trained with an additive margin."""

    def __init__(self, config: SlimvoxConfig) -> None:
        from transformers.models.wav2vec2.modeling_wav2vec2 import AMSoftmaxLoss, TDNNLayer

        super().__init__(config)
        self.projector = nn.Linear(config.hidden_size, config.tdnn_dim[0])
        self.tdnn = nn.ModuleList(TDNNLayer(config, index) for index in range(len(config.tdnn_dim)))
        self.feature_extractor = nn.Linear(config.tdnn_dim[-1] * 2, config.xvector_output_dim)
        self.classifier = nn.Linear(config.xvector_output_dim, config.xvector_output_dim)
        self.objective = AMSoftmaxLoss(config.xvector_output_dim, config.num_labels)
        self.post_init()

    @can_return_tuple  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        labels: Tensor | None = None,
    ) -> XVectorOutput:
        """Embeddings and logits, (batch, xvector_output_dim) both, and the loss if there are labels.

        Args:
            input_values: as in `SlimvoxModel.forward`.
            attention_mask: as in `SlimvoxModel.forward`.
            output_attentions: as in `SlimvoxModel.forward`.
            output_hidden_states: as in `SlimvoxModel.forward`.
            labels: (batch,), speakers.
        """
        states, output = self._encode(input_values, attention_mask, output_attentions, output_hidden_states)
        x = self.projector(states)
        for layer in self.tdnn:
            x = layer(x)
        embeddings = self.feature_extractor(
            self._statistics(x, output.frame_mask, attention_mask is not None)
        )
        logits = self.classifier(embeddings)
        loss = None if labels is None else self.objective(logits, labels)
        return XVectorOutput(
            loss=loss, logits=logits, embeddings=embeddings, hidden_states=output.hidden_states
        )

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if module is self.objective:
            init.normal_(self.objective.weight)

    def _statistics(self, x: Tensor, frame_mask: Tensor, padded: bool) -> Tensor:
        """Mean and standard deviation over time, (batch, 2 * channels)."""
        if not padded:
            return torch.cat([x.mean(1), x.std(1)], dim=-1)
        lengths = frame_mask.sum(-1) - sum(kernel - 1 for kernel in self.config.tdnn_kernel)
        clips = [clip[:length] for clip, length in zip(x, lengths.clamp(min=1).tolist(), strict=True)]
        return torch.stack([torch.cat([clip.mean(0), clip.std(0)]) for clip in clips])
