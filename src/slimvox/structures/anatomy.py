"""Anatomy of an encoder: a plain description of its structure, without tensors.

An `EncoderAnatomy` says which structures an encoder has left (per convolution its channels; per Transformer
layer its heads, their widths, the feed-forward width, and whether each block exists). The encoder is built from
it, surgery returns a smaller one, and `slimvox.costs` counts parameters and MACs from it alone.
"""

from __future__ import annotations

import dataclasses
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from slimvox.structures.parts import ConvAnatomy, ConvNorm, HeadAnatomy, LayerAnatomy, Length

SAMPLE_RATE_HZ = 16_000
"""Sample rate of all waveforms that an encoder reads."""

POSITION_GATE_OUTPUTS = 8
"""Outputs of WavLM's projection for the gate of the position bias (two gates, four summed units each)."""

MEL_WINDOW, MEL_HOP = 400, 160
"""Number of samples in a window of Whisper's log-mel spectrogram, and from one window to the next."""

MOST_POSITION_LAYERS = 1000


@dataclass(frozen=True, kw_only=True)
class EncoderAnatomy:
    """The whole encoder: front end, projection, positional convolution and Transformer layers."""

    family: str
    """Name of the architecture, see `slimvox.families`; everything it implies for the encoder is in other fields."""
    convolutions: tuple[ConvAnatomy, ...]
    """The convolutional front end, from the waveform upwards."""
    conv_norm: ConvNorm
    """`group`: group norm after the first convolution only (base models); `layer`: layer norm after each; `none`."""
    conv_bias: bool
    """True if the convolutions have a bias."""
    projection_norm: bool
    """True if a layer norm precedes the feature projection (HuBERT's `feat_proj_layer_norm`)."""
    width: int
    """Width of the hidden states; never pruned, so that downstream heads still fit."""
    position_kernel: int
    """Taps of the positional convolution; 0 where a table takes its place."""
    position_groups: int
    """Groups of the positional convolution."""
    attention_heads: int
    """Heads per layer of the original encoder."""
    layers: tuple[LayerAnatomy, ...]
    """The Transformer layers; a layer without blocks still counts, so that indices keep their meaning."""
    pre_norm: bool
    """Layer norm before each block (`do_stable_layer_norm`, large models) rather than after."""
    layer_norm_eps: float
    """Epsilon of the layer norms (the convolutions' norms use torch's default, as the originals do)."""
    position_buckets: int = 0
    """Number of buckets of WavLM's relative position bias; 0 without one."""
    position_max_distance: int = 0
    """Distance in frames from which all positions share a bucket."""
    position_stack: int = 0
    """Number of positional convolutions, each followed by a layer norm without weights (data2vec); 0 for a single one
    without norm."""
    position_taps: tuple[tuple[int, ...], ...] = ()
    """Kept taps of each positional convolution, by their original index; empty if all are kept."""
    normalize_waveform: bool = False
    """True if each waveform is first brought to zero mean and unit variance (the feature extractor's
    `do_normalize`)."""
    mel_bins: int = 0
    """Bins of the log-mel spectrogram that the first convolution reads (Whisper); 0 if it reads the waveform."""
    projection_convolution: ConvAnatomy | None = None
    """The feature projection where it is a convolution with GELU (Whisper's second) rather than a linear map."""
    position_table: int = 0
    """Rows of a fixed table of positions in place of the positional convolution, which is also the greatest number of
    frames; 0 without one."""
    key_bias: bool = True
    """True if the projection to keys has a bias."""
    final_norm_in_states: bool = False
    """True if the last of the hidden states of a pre-norm model has gone through the final layer norm, as Whisper's in
    `transformers` has; False if it has not, as in the large models of wav2vec 2.0."""

    def __post_init__(self) -> None:
        problems = _problems(self)
        if problems:
            raise ValueError("invalid anatomy: " + "; ".join(problems))

    @property
    def head_width(self) -> int:
        """Width of one head of the original encoder; the softmax scale always remains `head_width ** -0.5`."""
        return self.width // self.attention_heads

    @property
    def has_position_bias(self) -> bool:
        """True if the attention has WavLM's gated relative position bias."""
        return self.position_buckets > 0

    @property
    def position_layers(self) -> int:
        """Number of positional convolutions, one after the other."""
        return 0 if self.position_table else self.position_stack or 1

    def kept_taps(self, index: int) -> tuple[int, ...]:
        """Kept taps of a positional convolution, by their original index."""
        return self.position_taps[index] if self.position_taps else tuple(range(self.position_kernel))

    @property
    def has_position_table(self) -> bool:
        """True if the table of WavLM's position bias exists; it is removed with the last head that reads it."""
        return self.has_position_bias and any(layer.heads for layer in self.layers)

    @property
    def hop(self) -> int:
        """Number of samples from one frame to the next (320: 50 frames per second at 16 kHz)."""
        hop = MEL_HOP if self.mel_bins else 1
        for convolution in self.all_convolutions:
            hop *= convolution.stride
        return hop

    @property
    def all_convolutions(self) -> tuple[ConvAnatomy, ...]:
        """The convolutions from the waveform or spectrogram to the frames, including that of the projection."""
        last = self.projection_convolution
        return self.convolutions if last is None else (*self.convolutions, last)

    @property
    def most_samples(self) -> int | None:
        """Maximum number of input samples (480,000: 30 s); None if there is no limit."""
        return self.position_table * self.hop if self.position_table else None

    @property
    def receptive_field(self) -> int:
        """Number of samples that one frame of the front end sees (of a spectrogram: one window); also the shortest
        valid input (400).
        """
        if self.mel_bins:
            return MEL_WINDOW
        samples = 1
        for convolution in reversed(self.convolutions):
            samples = (samples - 1) * convolution.stride + convolution.kernel
        return samples

    def frames(self, samples: int) -> int:
        """Number of frames for `samples` samples (0 if fewer than the receptive field)."""
        return self.conv_lengths(samples)[-1]

    def conv_lengths(self, samples: int) -> tuple[int, ...]:
        """Output length of each convolution, 0 if there are too few samples; the last is the number of frames."""
        return tuple(max(0, length) for length in self.output_lengths(samples))

    def output_lengths(self, samples: Length) -> tuple[Length, ...]:
        """`conv_lengths` for an int or an integer tensor; 0 or less if there are too few samples."""
        length = samples // MEL_HOP if self.mel_bins else samples
        lengths = []
        for convolution in self.all_convolutions:
            length = convolution.output_length(length)
            lengths.append(length)
        return tuple(lengths)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; heads are written as `[index, qk, vo]`."""
        data = dataclasses.asdict(self)
        for name in _LEFT_OUT:
            if getattr(self, name) == getattr(EncoderAnatomy, name):
                del data[name]
        for convolution in (*data["convolutions"], data.get("projection_convolution") or {"padding": 0}):
            if not convolution["padding"]:
                del convolution["padding"]
        for layer in data["layers"]:
            layer["heads"] = [[head["index"], head["qk"], head["vo"]] for head in layer["heads"]]
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> EncoderAnatomy:
        """The reverse of `to_dict`.

        Raises:
            ValueError: for anything else.
        """
        fields = _fields(cls, data, "an anatomy")
        fields["convolutions"] = tuple(map(_convolution, _list(fields["convolutions"], "convolutions")))
        fields["layers"] = tuple(map(_layer, _list(fields["layers"], "layers")))
        taps = _list(fields.get("position_taps", ()), "position_taps")
        fields["position_taps"] = tuple(tuple(_list(each, "position_taps")) for each in taps)
        if fields.get("projection_convolution") is not None:
            fields["projection_convolution"] = _convolution(fields["projection_convolution"])
        return cls(**fields)


def _fields(kind: Any, data: Any, what: str) -> dict[str, Any]:
    """The fields of a dataclass in an object of JSON; none may be unknown, or missing if it has no default."""
    if not isinstance(data, Mapping):
        raise ValueError(f"invalid anatomy: {what} must be an object, but is {reprlib.repr(data)} instead")
    required = {each.name: each.default is dataclasses.MISSING for each in dataclasses.fields(kind)}
    for name in (*required, *data):
        if name not in required:
            raise ValueError(f"invalid anatomy: {what} has no field {name!r}; a newer slimvox may know it")
        if required[name] and name not in data:
            raise ValueError(f"invalid anatomy: the field {name!r} is missing")
    return dict(data)


def _list(values: Any, name: str) -> Sequence[Any]:
    if not isinstance(values, list | tuple):
        raise ValueError(f"invalid anatomy: `{name}` must be a list, but is {reprlib.repr(values)} instead")
    return values


def _convolution(data: Any) -> ConvAnatomy:
    return ConvAnatomy(**_fields(ConvAnatomy, data, "a convolution"))


def _layer(data: Any) -> LayerAnatomy:
    fields = _fields(LayerAnatomy, data, "a layer")
    heads = _list(fields["heads"], "heads")
    if not all(isinstance(head, list | tuple) and len(head) == 3 for head in heads):
        raise ValueError("invalid anatomy: `heads` must be a list of [index, qk, vo]")
    fields["heads"] = tuple(HeadAnatomy(index=index, qk=qk, vo=vo) for index, qk, vo in heads)
    return LayerAnatomy(**fields)


_LEFT_OUT = (
    "position_taps",
    "position_stack",
    "mel_bins",
    "projection_convolution",
    "position_table",
    "key_bias",
    "final_norm_in_states",
)
"""Fields newer than the format, which `to_dict` leaves out if they have their default."""


def _problems(anatomy: EncoderAnatomy) -> list[str]:
    """All problems of an anatomy, so that one message can name them."""
    return list(_wrong_types(anatomy)) or list(_wrong_values(anatomy))


def _wrong_types(anatomy: EncoderAnatomy) -> Iterator[str]:
    """Type problems: values of a type other than their field's (a string is not a flag, even if it is "no")."""
    for field in dataclasses.fields(anatomy):
        value = getattr(anatomy, field.name)
        if field.type == "int" and not _is_integer(value):
            yield f"`{field.name}` must be a whole number, but is {reprlib.repr(value)} instead"
        if field.type == "bool" and not isinstance(value, bool):
            yield f"`{field.name}` must be true or false, but is {reprlib.repr(value)} instead"
    if not all(_is_integer(tap) for taps in anatomy.position_taps for tap in taps):
        yield "`position_taps` must be whole numbers"
    eps = anatomy.layer_norm_eps
    if isinstance(eps, bool) or not isinstance(eps, int | float) or not 0 < eps < 1:
        yield f"`layer_norm_eps` must be a number above 0 and below 1, but is {reprlib.repr(eps)} instead"
    for number, convolution in enumerate(anatomy.all_convolutions):
        if not all(map(_is_integer, dataclasses.astuple(convolution))):
            yield f"channels, kernel, stride and padding of convolution {number} must be whole numbers"
    for number, layer in enumerate(anatomy.layers):
        if not isinstance(layer.attention, bool) or not isinstance(layer.feed_forward, bool):
            yield f"`attention` and `feed_forward` of layer {number} must be true or false"
        sizes = [
            layer.intermediate,
            *(size for head in layer.heads for size in (head.index, head.qk, head.vo)),
        ]
        if not all(map(_is_integer, sizes)):
            yield f"heads and `intermediate` of layer {number} must be whole numbers"


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**31


def _wrong_values(anatomy: EncoderAnatomy) -> Iterator[str]:
    """Problems of value: values of the right type that are out of range or contradict each other."""
    if not isinstance(anatomy.family, str) or not anatomy.family:
        yield f"`family` must be a name, but is {reprlib.repr(anatomy.family)} instead"
    if anatomy.conv_norm not in get_args(ConvNorm):
        allowed = ", ".join(map(repr, get_args(ConvNorm)))
        yield f"`conv_norm` must be one of {allowed}, but is {reprlib.repr(anatomy.conv_norm)} instead"
    if not anatomy.convolutions:
        yield "`convolutions` must not be empty"
    for number, convolution in enumerate(anatomy.all_convolutions):
        if min(convolution.channels, convolution.kernel, convolution.stride) < 1 or convolution.padding < 0:
            yield f"convolution {number} must have positive channels, kernel and stride, and no negative padding"
    projection = anatomy.projection_convolution
    if projection is not None and projection.channels != anatomy.width:
        yield f"`projection_convolution` must have {anatomy.width} channels, but has {projection.channels} instead"
    if anatomy.mel_bins < 0 or anatomy.position_table < 0:
        yield "`mel_bins` and `position_table` must be at least 0"
    if anatomy.width < 1 or anatomy.attention_heads < 1 or anatomy.width % anatomy.attention_heads:
        yield f"`width` {anatomy.width} must be a multiple of `attention_heads` {anatomy.attention_heads}"
    if anatomy.position_groups < 1 or anatomy.width % anatomy.position_groups:
        yield f"`width` {anatomy.width} must be a multiple of `position_groups` {anatomy.position_groups}"
    if anatomy.position_table:
        if anatomy.position_kernel or anatomy.position_stack or anatomy.position_taps:
            yield "`position_kernel`, `position_stack` and `position_taps` must be 0 or empty beside a `position_table`"
    elif anatomy.position_kernel < 1:
        yield f"`position_kernel` must be positive, but is {anatomy.position_kernel} instead"
    exact = anatomy.position_buckets // 4  # distances that each have their own bucket
    if anatomy.position_buckets < 0:
        yield f"`position_buckets` must be at least 0, but is {anatomy.position_buckets} instead"
    elif anatomy.position_buckets and not 1 <= exact < anatomy.position_max_distance:
        yield (
            f"`position_buckets` {anatomy.position_buckets} must be at least 4, and a quarter of it below"
            f" `position_max_distance` {anatomy.position_max_distance}"
        )
    if not 0 <= anatomy.position_stack <= MOST_POSITION_LAYERS:
        yield (
            f"`position_stack` must be between 0 and {MOST_POSITION_LAYERS}, but is {anatomy.position_stack} instead"
        )
    if anatomy.position_taps:
        if len(anatomy.position_taps) != anatomy.position_layers:
            yield "`position_taps` must name the taps of each positional convolution, or be empty"
        for taps in anatomy.position_taps:
            ordered = list(taps) == sorted(set(taps))
            if not taps or not ordered or not 0 <= taps[0] <= taps[-1] < anatomy.position_kernel:
                yield (
                    "`position_taps` must be distinct, in order, at least one, and below"
                    f" `position_kernel` {anatomy.position_kernel}"
                )
    for number, layer in enumerate(anatomy.layers):
        indices = [head.index for head in layer.heads]
        if indices != sorted(set(indices)) or any(not 0 <= i < anatomy.attention_heads for i in indices):
            yield f"heads of layer {number} must be distinct, in order and below {anatomy.attention_heads}"
        if any(head.vo < 1 for head in layer.heads):
            yield f"heads of layer {number} must keep at least one value dimension"
        if any(
            head.qk < 0 or max(head.qk, head.vo) * anatomy.attention_heads > anatomy.width
            for head in layer.heads
        ):
            yield f"heads of layer {number} must not be wider than `width` / `attention_heads`"
        if layer.intermediate < 0 or (not layer.attention and layer.heads):
            yield f"layer {number} must have a width of at least 0, and no heads without attention"
        if not layer.feed_forward and layer.intermediate:
            yield f"layer {number} must have width 0 where the feed-forward block is gone"
