"""The configuration of a pruned encoder: an anatomy, and the fields of `transformers` that can describe it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from transformers.configuration_utils import PreTrainedConfig

from slimvox.families.base import FIELDS, config_fields
from slimvox.hf.directory_format import AUTO_MAP, FORMAT_VERSION, MODEL_TYPE
from slimvox.structures.anatomy import EncoderAnatomy
from slimvox.structures.parts import ConvAnatomy, dense_layer


class DescribesEncoder:
    """Part of a configuration with `anatomy` and `dense_anatomy`."""

    anatomy: Any
    dense_anatomy: Any

    @property
    def encoder_anatomy(self) -> EncoderAnatomy:
        """Anatomy of the encoder."""
        return EncoderAnatomy.from_dict(self.anatomy)

    @property
    def encoder_dense_anatomy(self) -> EncoderAnatomy:
        """Anatomy of the dense encoder that it was pruned from."""
        return EncoderAnatomy.from_dict(self.dense_anatomy)

    @classmethod
    def register_for_auto_class(cls, auto_class: str = "AutoConfig") -> None:
        """Nothing to do: `auto_map` is always written, and the code is saved with the model."""


def check_format_version(version: int) -> None:
    """Raise ValueError if the format is that of a newer slimvox."""
    if version != FORMAT_VERSION:
        raise ValueError(
            f"`format_version` must be {FORMAT_VERSION}, but is {version!r} instead;"
            " a newer slimvox may be needed to read it"
        )


class SlimvoxConfig(DescribesEncoder, PreTrainedConfig):  # type: ignore[misc]
    """Configuration of a pruned (or dense) encoder and of the heads on it.

    `anatomy` decides everything about the encoder. The fields `transformers` has for it (`hidden_size`,
    `num_hidden_layers`, `num_attention_heads`, `intermediate_size`, `conv_dim`, ...) are worked out from it:
    globally those of the dense encoder, and what differs from layer to layer as `per_layer_config`.

    Args:
        anatomy: `EncoderAnatomy.to_dict()` of the encoder. The layout of wav2vec 2.0 base if not given.
        dense_anatomy: the same of the encoder that it was pruned from. Its own anatomy if not given.
        format_version: of the directory.
        vocab_size: outputs of the CTC head.
        ctc_loss_reduction: `sum` or `mean` over the batch, as in `torch.nn.functional.ctc_loss`.
        ctc_zero_infinity: drop the loss of clips that are too short for their labels.
        final_dropout: before the CTC head, in training.
        use_weighted_layer_sum: heads read a learned mean of all hidden states rather than the last.
        classifier_proj_size: width of the projection of the sequence classifier.
        tdnn_dim: channels of the layers of the x-vector head.
        tdnn_kernel: their kernels.
        tdnn_dilation: their dilations.
        xvector_output_dim: width of the speaker embedding.
        apply_spec_augment: whether the next fields count at all.
        mask_time_prob: share of frames masked in training (SpecAugment); 0 switches it off.
        mask_time_length: frames a mask.
        mask_time_min_masks: masks a clip, at least.
        mask_feature_prob: share of front-end channels masked in training; 0 switches it off.
        mask_feature_length: channels a mask.
        mask_feature_min_masks: masks a clip, at least.
        initializer_range: standard deviation of new linear maps.
        kwargs: the fields of every `transformers` configuration.

    Raises:
        ValueError: if the anatomy is not one, or a field that follows from it is given another value.
    """

    model_type: ClassVar[str] = MODEL_TYPE

    def __init__(
        self,
        *,
        anatomy: Mapping[str, Any] | None = None,
        dense_anatomy: Mapping[str, Any] | None = None,
        format_version: int = FORMAT_VERSION,
        vocab_size: int = 32,
        ctc_loss_reduction: str = "sum",
        ctc_zero_infinity: bool = False,
        final_dropout: float = 0.1,
        use_weighted_layer_sum: bool = False,
        classifier_proj_size: int = 256,
        tdnn_dim: tuple[int, ...] | list[int] = (512, 512, 512, 512, 1500),
        tdnn_kernel: tuple[int, ...] | list[int] = (5, 3, 3, 1, 1),
        tdnn_dilation: tuple[int, ...] | list[int] = (1, 2, 3, 1, 1),
        xvector_output_dim: int = 512,
        apply_spec_augment: bool = True,
        mask_time_prob: float = 0.0,
        mask_time_length: int = 10,
        mask_time_min_masks: int = 2,
        mask_feature_prob: float = 0.0,
        mask_feature_length: int = 10,
        mask_feature_min_masks: int = 0,
        initializer_range: float = 0.02,
        **kwargs: Any,
    ) -> None:
        check_format_version(format_version)
        described = EncoderAnatomy.from_dict(anatomy) if anatomy is not None else _default_anatomy()
        dense = EncoderAnatomy.from_dict(dense_anatomy) if dense_anatomy is not None else described
        self.format_version = format_version
        self.anatomy = described.to_dict()
        self.dense_anatomy = dense.to_dict()
        self.vocab_size = vocab_size
        self.ctc_loss_reduction = ctc_loss_reduction
        self.ctc_zero_infinity = ctc_zero_infinity
        self.final_dropout = final_dropout
        self.use_weighted_layer_sum = use_weighted_layer_sum
        self.classifier_proj_size = classifier_proj_size
        self.tdnn_dim = list(tdnn_dim)
        self.tdnn_kernel = list(tdnn_kernel)
        self.tdnn_dilation = list(tdnn_dilation)
        self.xvector_output_dim = xvector_output_dim
        self.apply_spec_augment = apply_spec_augment
        self.mask_time_prob = mask_time_prob
        self.mask_time_length = mask_time_length
        self.mask_time_min_masks = mask_time_min_masks
        self.mask_feature_prob = mask_feature_prob
        self.mask_feature_length = mask_feature_length
        self.mask_feature_min_masks = mask_feature_min_masks
        self.initializer_range = initializer_range
        for name, value in _standard_fields(described, dense).items():
            _agree(name, kwargs.pop(name, value), value)
            setattr(self, name, value)
        per_layer = per_layer_overrides(described, dense)
        given = kwargs.pop("per_layer_config", None)
        if given is not None:
            _agree(
                "per_layer_config", {int(index): dict(fields) for index, fields in given.items()}, per_layer
            )
        kwargs["auto_map"] = dict(AUTO_MAP)
        kwargs.setdefault("pad_token_id", 0)
        super().__init__(**kwargs, per_layer_config=per_layer or None)

    @property
    def inputs_to_logits_ratio(self) -> int:
        """Number of samples per frame."""
        return self.encoder_anatomy.hop


def per_layer_overrides(anatomy: EncoderAnatomy, dense: EncoderAnatomy) -> dict[int, dict[str, Any]]:
    """`per_layer_config` of `transformers`: by layer, the fields that differ from the dense encoder.

    `num_attention_heads` and `intermediate_size` are the kept numbers, and `skip` names the removed blocks
    (`attention`, `feed_forward`). The widths of single heads cannot be expressed in it; they are in `anatomy`.
    """
    heads, intermediate = dense.attention_heads, _dense_intermediate(dense)
    overrides: dict[int, dict[str, Any]] = {}
    for index, layer in enumerate(anatomy.layers):
        changes: dict[str, Any] = {}
        gone = [
            name
            for name, exists in (("attention", layer.attention), ("feed_forward", layer.feed_forward))
            if not exists
        ]
        if gone:
            changes["skip"] = gone
        if layer.attention and len(layer.heads) != heads:
            changes["num_attention_heads"] = len(layer.heads)
        if layer.feed_forward and layer.intermediate != intermediate:
            changes["intermediate_size"] = layer.intermediate
        if changes:
            overrides[index] = changes
    return overrides


def _standard_fields(anatomy: EncoderAnatomy, dense: EncoderAnatomy) -> dict[str, Any]:
    """Fields of the anatomy that wav2vec 2.0 in `transformers` has a name for, under that name."""
    return {**config_fields(anatomy, FIELDS), "intermediate_size": _dense_intermediate(dense)}


def _dense_intermediate(dense: EncoderAnatomy) -> int:
    return max((layer.intermediate for layer in dense.layers), default=0)


def _agree(name: str, given: Any, derived: Any) -> None:
    if (list(given) if isinstance(given, tuple) else given) != derived:
        raise ValueError(
            f"`{name}` follows from `anatomy` and must be {derived!r}, but is {given!r} instead; leave it out"
        )


def _default_anatomy() -> EncoderAnatomy:
    """The anatomy of wav2vec 2.0 base."""
    kernels, strides = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)
    return EncoderAnatomy(
        family="wav2vec2",
        convolutions=tuple(
            ConvAnatomy(channels=512, kernel=kernel, stride=stride)
            for kernel, stride in zip(kernels, strides, strict=True)
        ),
        conv_norm="group",
        conv_bias=False,
        projection_norm=True,
        width=768,
        position_kernel=128,
        position_groups=16,
        attention_heads=12,
        layers=(dense_layer(heads=12, head_width=64, intermediate=3072),) * 12,
        pre_norm=False,
        layer_norm_eps=1e-5,
    )
