"""Heads of unequal width: padded to one width, grouped by width, or one by one, timed on this machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimvox.encoder.attention import SelfAttention
from slimvox.encoder.position_bias import PositionBiasTable
from slimvox.structures.anatomy import EncoderAnatomy
from slimvox.structures.parts import HeadAnatomy, LayerAnatomy
from slimvox.util.timing import seconds_in_turns


class GroupedAttention(nn.Module):
    """The same attention, one kernel call for every group of heads; weights are cut and padded once."""

    def __init__(
        self, whole: SelfAttention, heads: Sequence[HeadAnatomy], groups: Sequence[Sequence[int]]
    ) -> None:
        super().__init__()
        self.whole, self.groups = whole, groups
        qk_starts = _starts([head.qk for head in heads])
        vo_starts = _starts([head.vo for head in heads])
        self.parts: list[
            tuple[int, tuple[Tensor, Tensor], tuple[Tensor, Tensor], tuple[Tensor, Tensor], Tensor]
        ]
        self.parts = []
        for group in groups:
            width = max(max(heads[i].qk, heads[i].vo) for i in group)
            qk = [(qk_starts[i], heads[i].qk) for i in group]
            vo = [(vo_starts[i], heads[i].vo) for i in group]
            self.parts.append(
                (
                    width,
                    _rows(whole.q_proj, qk, width),
                    _rows(whole.k_proj, qk, width),
                    _rows(whole.v_proj, vo, width),
                    _columns(whole.out_proj.weight, vo, width),
                )
            )

    def forward(self, x: Tensor, position_bias: Tensor | None, padding_bias: Tensor | None) -> Tensor:
        """See `SelfAttention.forward`; without padding."""
        bias = self.whole.gate(x, position_bias) if self.whole.gate is not None else None
        out = self.whole.out_proj.bias.expand_as(x)
        for group, (width, query, key, value, output) in zip(self.groups, self.parts, strict=True):
            q, k, v = (
                F.linear(x, *each).unflatten(-1, (len(group), width)).transpose(1, 2)
                for each in (query, key, value)
            )
            own = None if bias is None else bias[:, list(group)]
            attended = F.scaled_dot_product_attention(q, k, v, attn_mask=own, scale=self.whole.scale)
            out = out + F.linear(attended.transpose(1, 2).flatten(2), output)
        return out


def table(anatomy: EncoderAnatomy, runs: int, seconds: float = 10.0) -> str:
    """Markdown: milliseconds of all layers of an encoder; checks that the ways agree.

    Args:
        anatomy: of an encoder with heads of unequal width.
        runs: timed passes through all layers, interleaved.
        seconds: of audio.
    """
    frames = anatomy.conv_lengths(int(16_000 * seconds))[-1]
    bias = PositionBiasTable(anatomy)(frames).detach() if anatomy.has_position_bias else None
    x = torch.randn(1, frames, anatomy.width)
    layers = [layer for layer in anatomy.layers if layer.heads]
    whole = [SelfAttention(anatomy, layer).eval() for layer in layers]
    for attention in whole:
        for parameter in attention.parameters():
            nn.init.normal_(parameter, std=0.02)
    ways: dict[str, list[nn.Module]] = {
        "one width (slimvox)": list(whole),
        "grouped by width, multiples of 8": _grouped(whole, layers, lambda h: -(-max(h.qk, h.vo) // 8)),
        "grouped by width, multiples of 16": _grouped(whole, layers, lambda h: -(-max(h.qk, h.vo) // 16)),
        "one by one": _grouped(whole, layers, lambda h: h.index),
    }
    calls = {
        name: lambda modules=modules: [module(x, bias, None) for module in modules]
        for name, modules in ways.items()
    }
    with torch.inference_mode():
        expected = [module(x, bias, None) for module in whole]
        for call in calls.values():
            for output, wanted in zip(call(), expected, strict=True):
                torch.testing.assert_close(output, wanted, rtol=1e-3, atol=1e-3)
        times = {name: 1000 * median(each) for name, each in seconds_in_turns(calls, runs).items()}
    best = times["one width (slimvox)"]
    lines = ["| heads of unequal width | ms, all layers | relative time |", "|---|---|---|"]
    lines += [f"| {name} | {each:.1f} | {each / best:.2f} |" for name, each in times.items()]
    return "\n".join(lines)


def _grouped(
    whole: Sequence[SelfAttention], layers: Sequence[LayerAnatomy], key: Callable[[HeadAnatomy], int]
) -> list[nn.Module]:
    modules: list[nn.Module] = []
    for attention, layer in zip(whole, layers, strict=True):
        keys = [key(head) for head in layer.heads]
        groups = [[i for i, other in enumerate(keys) if other == each] for each in sorted(set(keys))]
        modules.append(GroupedAttention(attention, layer.heads, groups))
    return modules


def _starts(widths: Sequence[int]) -> list[int]:
    return [sum(widths[:index]) for index in range(len(widths))]


def _rows(linear: nn.Linear, spans: Sequence[tuple[int, int]], width: int) -> tuple[Tensor, Tensor]:
    weight, bias = linear.weight.detach(), linear.bias.detach()
    rows = [F.pad(weight[start : start + size], (0, 0, 0, width - size)) for start, size in spans]
    biases = [F.pad(bias[start : start + size], (0, width - size)) for start, size in spans]
    return torch.cat(rows), torch.cat(biases)


def _columns(weight: Tensor, spans: Sequence[tuple[int, int]], width: int) -> Tensor:
    weight = weight.detach()
    return torch.cat([F.pad(weight[:, start : start + size], (0, width - size)) for start, size in spans], 1)
