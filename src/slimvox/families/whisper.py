"""Whisper's encoder (Radford et al., 2022, https://arxiv.org/abs/2212.04356), from tiny to large-v3 and turbo.

It reads a log-mel spectrogram, which is computed inside the encoder, and knows positions from a fixed table of 1,500
frames, so that no input may be longer than 30 s.
"""

from slimvox.families.base import Family, register_family
from slimvox.structures.anatomy import MEL_HOP, MEL_WINDOW
from slimvox.structures.parts import ConvAnatomy

register_family(
    Family(
        model_type="whisper",
        title="Whisper",
        prefix="model.encoder",
        fields={
            "d_model": "width",
            "encoder_attention_heads": "attention_heads",
            "num_mel_bins": "mel_bins",
            "max_source_positions": "position_table",
        },
        layers_field="encoder_layers",
        intermediate_field="encoder_ffn_dim",
        constants={
            "conv_norm": "none",
            "conv_bias": True,
            "projection_norm": False,
            "position_kernel": 0,
            "position_groups": 1,
            "pre_norm": True,
            "layer_norm_eps": 1e-5,
            "key_bias": False,
            "final_norm_in_states": True,
        },
        convolutions=lambda width: {
            "convolutions": (ConvAnatomy(channels=width, kernel=3, stride=1, padding=1),),
            "projection_convolution": ConvAnatomy(channels=width, kernel=3, stride=2, padding=1),
        },
        modules=("conv1", "conv2", "embed_positions", "layers", "layer_norm"),
        first_weight="conv1.weight",
        renames=(
            (r"^conv1\.", "feature_extractor.conv_layers.0.conv."),
            (r"^conv2\.", "feature_projection.projection."),
            (r"^embed_positions\.", "pos_conv_embed."),
            (r"^(layers\.\d+)\.self_attn_layer_norm\.", r"\1.layer_norm."),
            (r"^(layers\.\d+)\.self_attn\.", r"\1.attention."),
            (r"^(layers\.\d+)\.fc1\.", r"\1.feed_forward.intermediate_dense."),
            (r"^(layers\.\d+)\.fc2\.", r"\1.feed_forward.output_dense."),
        ),
        feature_extractor="WhisperFeatureExtractor",
        extractor_settings={"n_fft": MEL_WINDOW, "hop_length": MEL_HOP, "dither": 0.0, "do_normalize": False},
        recipe="whisper",
        heads=(),
    )
)
