"""WavLM (Chen et al., 2022, https://arxiv.org/abs/2110.13900): a gated relative position bias in every layer."""

from slimvox.families.base import FIELDS, RENAMES, Family, register_family

register_family(
    Family(
        model_type="wavlm",
        title="WavLM",
        prefix="wavlm",
        fields={
            **FIELDS,
            "num_buckets": "position_buckets",
            "max_bucket_distance": "position_max_distance",
        },
        constants={"projection_norm": True},
        renames=(
            # `transformers` stores the table that all layers share in the first layer.
            (r"^encoder\.layers\.0\.attention\.rel_attn_embed\.", "rel_attn_embed."),
            (r"^encoder\.(layers\.\d+\.attention)\.gru_rel_pos_", r"\1.gate.gru_rel_pos_"),
            *RENAMES,
        ),
    )
)
