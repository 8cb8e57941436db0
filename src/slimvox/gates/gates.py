"""All gates of an encoder: one vector of locations, sampled into masks, or counted in expectation."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn

from slimvox.anatomy import EncoderAnatomy, LayerAnatomy
from slimvox.cost import EncoderSizes, LayerSizes
from slimvox.gates.hard_concrete import location, open_probability, sample
from slimvox.gates.structures import Structure
from slimvox.masks import EncoderMasks, LayerMasks


@dataclass(frozen=True, kw_only=True)
class GateGroup:
    """A run of gates that belong together: one structure of one convolution or Transformer layer."""

    structure: Structure
    index: int
    """Which convolution or layer."""
    start: int
    stop: int

    @property
    def slice(self) -> slice:
        """Where its gates lie in the vector of all gates."""
        return slice(self.start, self.stop)


def gate_groups(anatomy: EncoderAnatomy, structures: Collection[Structure]) -> tuple[GateGroup, ...]:
    """The gates an encoder has, front end first, then layer by layer."""
    sizes: list[tuple[Structure, int, int]] = [
        ("conv", index, convolution.channels) for index, convolution in enumerate(anatomy.convolutions)
    ]
    for index, layer in enumerate(anatomy.layers):
        if layer.attention:
            sizes.append(("attention", index, 1))
            sizes += [("head", index, len(layer.heads)), ("qk", index, layer.qk), ("vo", index, layer.vo)]
        if layer.feed_forward:
            sizes += [("feed_forward", index, 1), ("intermediate", index, layer.intermediate)]
    groups, start = [], 0
    for structure, index, size in sizes:
        if structure in structures and size:
            groups.append(GateGroup(structure=structure, index=index, start=start, stop=start + size))
            start += size
    return tuple(groups)


def gate_spans(anatomy: EncoderAnatomy, group: GateGroup) -> Iterator[tuple[int, int]]:
    """Start and number of the gates of each width in a group."""
    if group.structure in ("qk", "vo"):
        start = group.start
        for head in anatomy.layers[group.index].heads:
            size = head.qk if group.structure == "qk" else head.vo
            yield start, size
            start += size
    elif group.structure == "head":
        for gate in range(group.start, group.stop):
            yield gate, 1
    else:
        yield group.start, group.stop - group.start


def masks_from_vector(anatomy: EncoderAnatomy, groups: Collection[GateGroup], values: Tensor) -> EncoderMasks:
    """Masks whose values are those of a vector laid out like `groups`; what has no gate is not masked."""
    conv: list[Tensor | None] = [None] * len(anatomy.convolutions)
    layers: list[dict[str, Tensor]] = [{} for _ in anatomy.layers]
    for group in groups:
        part = values[group.slice]
        if group.structure == "conv":
            conv[group.index] = part
        else:
            whole_block = group.structure in ("attention", "feed_forward")
            layers[group.index][group.structure] = part[0] if whole_block else part
    return EncoderMasks(conv=tuple(conv), layers=tuple(LayerMasks(**layer) for layer in layers))


class Gates(nn.Module):
    """Hard concrete gates for the chosen structures of an encoder.

    Attributes:
        log_alpha: the locations of all gates, (gates,) float32, laid out like `groups`.
        groups: which gates are whose.
    """

    def __init__(
        self,
        anatomy: EncoderAnatomy,
        structures: Collection[Structure],
        *,
        initial_drop: float = 0.01,
        initial_drops: Mapping[Structure, float] = MappingProxyType({}),
        straight_through: bool = True,
    ) -> None:
        """Gates that start open.

        Args:
            anatomy: the encoder's.
            structures: which kinds to gate.
            initial_drop: sets the first log_alpha to log((1 - drop) / drop).
            initial_drops: the same for single structures, in its place.
            straight_through: see `hard_concrete.sample`.

        Raises:
            ValueError: if the encoder has none of the structures.
        """
        super().__init__()
        self.anatomy = anatomy
        self.groups = gate_groups(anatomy, structures)
        if not self.groups:
            raise ValueError(
                f"the encoder has no {', '.join(sorted(structures)) or 'structure chosen'} to gate"
            )
        self.straight_through = straight_through
        log_alpha = torch.full((self.groups[-1].stop,), location(initial_drop))
        for group in self.groups:
            if group.structure in initial_drops:
                log_alpha[group.slice] = location(initial_drops[group.structure])
        self.log_alpha = nn.Parameter(log_alpha)

    def sample(self, generator: torch.Generator | None = None) -> EncoderMasks:
        """Random masks, differentiable in log_alpha. `generator` is a CPU generator."""
        u = torch.rand(self.log_alpha.shape, generator=generator).to(self.log_alpha.device)
        with torch.autocast(self.log_alpha.device.type, enabled=False):
            values = sample(self.log_alpha.float(), u, straight_through=self.straight_through)
        return masks_from_vector(self.anatomy, self.groups, values)

    def expected_sizes(self) -> EncoderSizes:
        """The sizes that surgery would leave on average, differentiable (scalar tensors).

        Exact but for what goes with the last of its kind: a head all of whose value dimensions are closed goes as a
        whole, and here its query dimensions still count; WavLM's bias gate goes with the last head of a block, and the
        bias table with the last head of all, and here they stay.
        """
        probability = open_probability(self.log_alpha.float())
        by_layer: list[dict[str, Tensor]] = [{} for _ in self.anatomy.layers]
        channels: list[Tensor | int] = [convolution.channels for convolution in self.anatomy.convolutions]
        for group in self.groups:
            if group.structure == "conv":
                channels[group.index] = probability[group.slice].sum()
            else:
                by_layer[group.index][group.structure] = probability[group.slice]
        layers = tuple(
            _expected_layer(layer, gates) for layer, gates in zip(self.anatomy.layers, by_layer, strict=True)
        )
        return EncoderSizes(channels=tuple(channels), layers=layers)


def _expected_layer(layer: LayerAnatomy, gates: dict[str, Tensor]) -> LayerSizes:
    """Expected sizes of one layer from the open probabilities of its gates, by structure."""
    attention = gates["attention"][0] if "attention" in gates else int(layer.attention)
    feed_forward = gates["feed_forward"][0] if "feed_forward" in gates else int(layer.feed_forward)
    intermediate = gates["intermediate"].sum() if "intermediate" in gates else layer.intermediate
    heads = gates.get("head")

    def dimensions(structure: str, widths: list[int]) -> Tensor | int:
        """Over all heads, the sum of each head's probability times its expected width."""
        if structure not in gates and heads is None:
            return sum(widths)
        if structure in gates:
            parts = torch.split(gates[structure], widths)
            per_head = torch.stack([part.sum() for part in parts]) if parts else gates[structure]
        else:
            assert heads is not None
            per_head = heads.new_tensor(widths)
        return (per_head if heads is None else per_head * heads).sum()

    return LayerSizes(
        attention=attention,
        heads=attention * (len(layer.heads) if heads is None else heads.sum()),
        qk=attention * dimensions("qk", [head.qk for head in layer.heads]),
        vo=attention * dimensions("vo", [head.vo for head in layer.heads]),
        feed_forward=feed_forward,
        intermediate=feed_forward * intermediate,
    )
