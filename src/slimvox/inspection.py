"""What an encoder is made of, as plain data."""

from __future__ import annotations

from typing import Any

from slimvox.anatomy import EncoderAnatomy
from slimvox.cost import mac_costs, macs, parameter_costs, parameters

SECONDS = 10.0
"""Length of the clip that MACs are counted for."""


def inspection(anatomy: EncoderAnatomy, dense: EncoderAnatomy) -> dict[str, Any]:
    """Sizes and costs of an encoder beside those of the dense one, as JSON types.

    Args:
        anatomy: of the encoder.
        dense: of what it was pruned from; the same where it was not.

    Returns:
        `parameters`, `parameters_dense`, `macs_10s`, `macs_10s_dense`, `blocks` (front end, projection, position) and
        `layers`, one for each Transformer layer with its `heads`, `qk`, `vo`, `intermediate` as [kept, dense].
    """
    parameter, mac = parameter_costs(anatomy), mac_costs(anatomy, SECONDS)
    return {
        "family": anatomy.family,
        "parameters": parameters(anatomy),
        "parameters_dense": parameters(dense),
        "macs_10s": macs(anatomy, SECONDS),
        "macs_10s_dense": macs(dense, SECONDS),
        "blocks": {
            "front_end": {
                "channels": [
                    [now.channels, before.channels]
                    for now, before in zip(anatomy.convolutions, dense.convolutions, strict=True)
                ],
                "parameters": parameter.front_end,
                "macs_10s": mac.front_end,
            },
            "projection": {"parameters": parameter.projection, "macs_10s": mac.projection},
            "position": {"parameters": parameter.position, "macs_10s": mac.position},
        },
        "layers": [
            {
                "attention": now.attention,
                "feed_forward": now.feed_forward,
                "heads": [len(now.heads), len(before.heads)],
                "head_indices": [head.index for head in now.heads],
                "head_qk": [head.qk for head in now.heads],
                "head_vo": [head.vo for head in now.heads],
                "qk": [now.qk, before.qk],
                "vo": [now.vo, before.vo],
                "intermediate": [now.intermediate, before.intermediate],
                "parameters": parameter.attention[index] + parameter.feed_forward[index],
                "macs_10s": mac.attention[index] + mac.feed_forward[index],
            }
            for index, (now, before) in enumerate(zip(anatomy.layers, dense.layers, strict=True))
        ],
    }
