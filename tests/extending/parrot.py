"""A family as another package would define it: wav2vec 2.0 with other names, and no norm before the projection."""

from __future__ import annotations

from transformers import AutoConfig
from transformers.models.wav2vec2.configuration_wav2vec2 import Wav2Vec2Config

from slimvox.families import Family
from slimvox.families.base import FIELDS, RENAMES


class ParrotConfig(Wav2Vec2Config):  # type: ignore[misc]
    """Configuration known to `AutoConfig`, which fills in fields that a `config.json` leaves out."""

    model_type = "parrot"


AutoConfig.register("parrot", ParrotConfig, exist_ok=True)

PARROT = Family(
    model_type="parrot",
    title="Parrot",
    prefix="parrot",
    fields={name: ours for name, ours in FIELDS.items() if ours != "conv_norm"},
    constants={"conv_norm": "layer", "projection_norm": False},
    renames=((r"^encoder\.blocks\.", "encoder.layers."), *RENAMES),
)
