"""wav2vec 2.0 (Baevski et al., 2020, https://arxiv.org/abs/2006.11477)."""

from slimvox.families.base import Family, register_family

register_family(
    Family(
        model_type="wav2vec2",
        title="wav2vec 2.0",
        prefix="wav2vec2",
        constants={"projection_norm": True},
    )
)
