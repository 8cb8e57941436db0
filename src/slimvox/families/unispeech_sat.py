"""UniSpeech-SAT (Chen et al., 2022, https://arxiv.org/abs/2110.05752): wav2vec 2.0's encoder, trained differently."""

from slimvox.families.base import Family, register_family

register_family(
    Family(
        model_type="unispeech-sat",
        title="UniSpeech-SAT",
        prefix="unispeech_sat",
        constants={"projection_norm": True},
    )
)
