"""data2vec on audio (Baevski et al., 2022, https://arxiv.org/abs/2202.03555).

Several positional convolutions of few taps, one on top of the other, each with a layer norm. Front end and layer norms
are always arranged in the same way, which the configuration therefore does not mention.
"""

from slimvox.families.base import FIELDS, Family, register_family

register_family(
    Family(
        model_type="data2vec-audio",
        title="data2vec-audio",
        prefix="data2vec_audio",
        fields={
            **{name: ours for name, ours in FIELDS.items() if ours not in ("conv_norm", "pre_norm")},
            "num_conv_pos_embeddings": "position_stack",
            "conv_pos_kernel_size": "position_kernel",
        },
        constants={"conv_norm": "layer", "pre_norm": False, "projection_norm": True},
    )
)
