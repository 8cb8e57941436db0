"""Parts of the positional convolution that can be removed: error of the hidden states with a share of it zero.

    python benchmarks/structures/position.py

The embedded teacher on eight clips of the embedded speech, without any training; what has the smallest norm goes first.
Prints a Markdown table: relative error over all hidden states.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor

import slimvox
from slimvox.audio import read_audio
from slimvox.embedded import audio_files
from slimvox.encoder import SpeechEncoder

CLIPS, SECONDS = 8, 8
SHARES = (0.75, 0.5, 0.25, 0.1)


def main() -> None:
    """Print the table."""
    encoder = slimvox.load("embedded")
    files = sorted(audio_files())[:CLIPS]
    waveforms = [torch.from_numpy(read_audio(str(file), seconds=SECONDS)) for file in files]
    reference = states(encoder, waveforms)
    print(f"| kept | {' | '.join(PARTS)} |\n|---|{'---|' * len(PARTS)}")
    for share in SHARES:
        errors = []
        for part in PARTS.values():
            changed = copy.deepcopy(encoder)
            with torch.no_grad():
                weight = changed.pos_conv_embed.conv.weight
                weight.mul_(part(weight, changed.anatomy.position_groups, share))
            errors.append(f"{float((states(changed, waveforms) - reference).norm() / reference.norm()):.3f}")
        print(f"| {share:.0%} | {' | '.join(errors)} |")


@torch.no_grad()
def states(encoder: SpeechEncoder, waveforms: list[Tensor]) -> Tensor:
    """All hidden states of all clips, one after the other."""
    return torch.cat([state.flatten() for clip in waveforms for state in encoder(clip[None]).hidden_states])


def best(norms: Tensor, share: float) -> Tensor:
    """1 for the largest norms, as many as the share says, and 0 for the others."""
    kept = torch.zeros_like(norms)
    kept[norms.argsort(descending=True)[: round(share * len(norms))]] = 1
    return kept


def taps(weight: Tensor, groups: int, share: float) -> Tensor:
    """Any taps."""
    return best(weight.square().sum((0, 1)), share)


def central_taps(weight: Tensor, groups: int, share: float) -> Tensor:
    """Those nearest to the middle."""
    size = weight.shape[2]
    return best(-(torch.arange(size) - size // 2).abs().float(), share)


def input_channels(weight: Tensor, groups: int, share: float) -> Tensor:
    """Input channels of each group."""
    by_group = weight.view(groups, -1, *weight.shape[1:])
    kept = best(by_group.square().sum((1, 3)).flatten(), share).view(groups, 1, -1, 1)
    return kept.expand_as(by_group[..., :1]).reshape(*weight.shape[:2], 1)


def output_channels(weight: Tensor, groups: int, share: float) -> Tensor:
    """Output channels."""
    return best(weight.square().sum((1, 2)), share)[:, None, None]


def whole_groups(weight: Tensor, groups: int, share: float) -> Tensor:
    """Groups with all their channels."""
    kept = best(weight.view(groups, -1).square().sum(1), share)
    return kept.repeat_interleave(len(weight) // groups)[:, None, None]


PARTS: dict[str, Callable[[Tensor, int, float], Tensor]] = {
    "taps": taps,
    "central taps": central_taps,
    "input channels": input_channels,
    "output channels": output_channels,
    "groups": whole_groups,
}

if __name__ == "__main__":
    main()
