"""HuBERT (Hsu et al., 2021, https://arxiv.org/abs/2106.07447): the encoder of wav2vec 2.0, trained differently."""

from slimvox.families.base import FIELDS, Family, register_family

register_family(
    Family(
        model_type="hubert",
        title="HuBERT",
        prefix="hubert",
        fields={**FIELDS, "feat_proj_layer_norm": "projection_norm"},
        refused={
            "conv_pos_batch_norm": (
                "(mHuBERT-147) are not supported, because a batch norm before a zero-padded convolution cannot be"
                " folded into it: its shift would reach into the padding"
            )
        },
        heads=("ForCTC", "ForSequenceClassification"),
    )
)
