"""Writes a pre-training checkpoint as a `transformers` model directory, in float16.

    python training/export_teacher.py --checkpoint runs/teacher/checkpoint.pt --out src/slimvox/embedded/teacher \
        --probe runs/teacher/probe.json

The directory is what `slimvox.load` and `transformers.AutoModel.from_pretrained` read: `config.json`,
`model.safetensors`, `preprocessor_config.json`, and a model card, `README.md`.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers.models.wavlm.configuration_wavlm import WavLMConfig
from transformers.models.wavlm.modeling_wavlm import WavLMModel

from pretrain import CONFIG
from slimvox.checkpoint import load
from teacher_card import model_card

RENAMES = (
    (re.compile(r"^(layers\.\d+\.attention)\.gate\."), r"\1."),
    (re.compile(r"^rel_attn_embed\."), "layers.0.attention.rel_attn_embed."),
    (re.compile(r"^(pos_conv_embed|layer_norm|layers)\."), r"encoder.\1."),
)
"""From the names of `SpeechEncoder` to those of `transformers`, the reverse of what its reader does."""
POSITION_WEIGHT = "encoder.pos_conv_embed.conv.weight"
TOLERANCE = 1e-4
"""Largest difference allowed between the states of `transformers` and of slimvox, both from the written file."""


def transformers_tensors(model: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state of `pretrain.Pretraining`, less its heads, under `transformers`' names, in float16."""
    tensors = {"masked_spec_embed": model["mask_embedding"]}
    for name, tensor in model.items():
        if name.startswith("encoder."):
            name = name.removeprefix("encoder.")
            for pattern, replacement in RENAMES:
                name = pattern.sub(replacement, name)
            tensors[name] = tensor
    # transformers keeps this weight as magnitude (one per tap) and direction.
    weight = tensors.pop(POSITION_WEIGHT).half()
    base = POSITION_WEIGHT.replace("weight", "parametrizations.weight.original")
    tensors[base + "0"] = weight.float().norm(dim=(0, 1), keepdim=True)
    tensors[base + "1"] = weight
    return {name: tensor.half().contiguous() for name, tensor in tensors.items()}


def configuration() -> dict[str, Any]:
    """Data type written into `config.json`; loading gives float32 whatever the file stores."""
    config: dict[str, Any] = WavLMConfig(**CONFIG).to_dict()
    config |= {"architectures": ["WavLMModel"], "dtype": "float32"}
    return config


@torch.no_grad()
def check(directory: Path) -> float:
    """Largest difference of any hidden state, `transformers` against slimvox, on a second of noise.

    Raises:
        ValueError: if they differ by more than `TOLERANCE`.
    """
    theirs, report = WavLMModel.from_pretrained(directory, output_loading_info=True)
    problems = [f"{key}: {value}" for key, value in report.items() if value]
    waveforms = torch.randn(2, 16_000, generator=torch.Generator().manual_seed(0)) * 0.1
    expected = theirs.eval()(waveforms, output_hidden_states=True).hidden_states
    states = load(directory)(waveforms).hidden_states
    worst = max(float((a - b).abs().max()) for a, b in zip(states, expected, strict=True))
    if problems or worst > TOLERANCE:
        raise ValueError(
            f"{directory} is not what `transformers` expects: {problems}, difference {worst:.2g}"
        )
    return worst


def main() -> None:
    """Write the directory and check that both libraries read it alike."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="checkpoint.pt of pretrain.py")
    parser.add_argument("--probe", type=Path, help="probe.json of probe.py, for the model card")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    checkpoint = torch.load(arguments.checkpoint, map_location="cpu", weights_only=True)
    tensors = transformers_tensors(checkpoint["model"])
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    (out / "model.safetensors").chmod(0o644)  # it is written for its owner only
    (out / "config.json").write_text(json.dumps(configuration(), indent=2, sort_keys=True) + "\n")
    preprocessor = {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "do_normalize": False,
        "feature_size": 1,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": False,
        "sampling_rate": 16_000,
    }
    (out / "preprocessor_config.json").write_text(json.dumps(preprocessor, indent=2) + "\n")
    probe = json.loads(arguments.probe.read_text()) if arguments.probe else None
    parameters = sum(tensor.numel() for tensor in tensors.values())
    (out / "README.md").write_text(
        model_card(
            parameters=parameters,
            steps=int(checkpoint["step"]),
            minutes=float(checkpoint["elapsed"]) / 60,
            hours_heard=float(checkpoint["audio_seconds"]) / 3600,
            probe=probe,
        )
    )
    size = (out / "model.safetensors").stat().st_size / 1e6
    print(f"{out}: step {checkpoint['step']}, {parameters / 1e6:.2f} M parameters, {size:.1f} MB")
    print(f"largest difference between transformers and slimvox: {check(out):.1e}")


if __name__ == "__main__":
    main()
