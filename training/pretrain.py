"""Pre-trains the small WavLM that slimvox embeds.

Masked prediction as in HuBERT, denoising as in WavLM: spans of frames are hidden and other speech or noise is mixed in,
and the network predicts, for every frame of the undisturbed speech, the states of three layers of Whisper's encoder,
their clusters, and the speakers who are heard. The targets are computed on the way, from the audio of each step. The
schedule follows the clock, so that a busy machine still ends on time.

    python training/pretrain.py --whisper whisper-base --corpus CORPUS --out runs/teacher --minutes 8 --device cuda
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from corpus import Corpus
from disturbance import Disturbance
from slimvox.audio import SAMPLE_RATE_HZ
from slimvox.checkpoint.transformers_reader import anatomy_from_config
from slimvox.encoder import SpeechEncoder
from targets import CLUSTERS, ContentTargets, SpeakerTargets, Targets

CONFIG: dict[str, object] = {
    "model_type": "wavlm",
    "hidden_size": 192,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "intermediate_size": 768,
    "conv_dim": [64, 96, 128, 192, 192, 192, 192],
    "conv_kernel": [10, 3, 3, 3, 3, 2, 2],
    "conv_stride": [5, 2, 2, 2, 2, 2, 2],
    "num_conv_pos_embeddings": 64,
    "num_conv_pos_embedding_groups": 16,
    "num_buckets": 320,
    "max_bucket_distance": 800,
}
HEADS = {"mid": 7, "upper": 10, "last": 12}
"""Hidden state that each layer of Whisper is predicted from."""
WEIGHTS = {"mid": 0.5, "upper": 0.5, "last": 1.0}
"""Weights of the cross-entropies and, twice as much, of the regressions."""
SPEAKERS = 4
"""Hidden state that the speakers are predicted from."""
ROW_SECONDS = (1.5, 3.0, 6.0, 10.0)
"""Lengths of the rows of a step, one of them at random."""


class Pretraining(nn.Module):
    """The encoder with the heads that only pre-training needs."""

    def __init__(self, units: int = CLUSTERS, state_width: int = 512, speaker_width: int = 256) -> None:
        super().__init__()
        anatomy = anatomy_from_config(dict(CONFIG), "training/pretrain.py", normalize_waveform=False)
        self.encoder = SpeechEncoder(anatomy)
        width = anatomy.width
        self.mask_embedding = nn.Parameter(torch.rand(width) - 0.5)
        self.heads = nn.ModuleDict({name: nn.Linear(width, units) for name in HEADS})
        self.regressions = nn.ModuleDict({name: nn.Linear(width, state_width) for name in HEADS})
        self.speakers = nn.Linear(width, speaker_width)
        self._initialise()
        self._hidden_frames: Tensor | None = None
        self.encoder.feature_projection.register_forward_hook(self._hide)

    def _initialise(self) -> None:
        """Small normal weights for the Transformer, He's for the convolutions."""
        for name, module in self.encoder.named_modules():
            if isinstance(module, nn.Conv1d):
                if "pos_conv" in name:
                    nn.init.normal_(
                        module.weight, std=2 * math.sqrt(1 / (module.kernel_size[0] * module.in_channels))
                    )
                else:
                    nn.init.kaiming_normal_(module.weight)
            elif isinstance(module, nn.Linear) and "layers." in name:
                nn.init.normal_(module.weight, std=0.03)
                nn.init.zeros_(module.bias)
        assert self.encoder.rel_attn_embed is not None
        nn.init.normal_(self.encoder.rel_attn_embed.weight, std=0.02)

    def _hide(self, module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        if self._hidden_frames is None:
            return output
        return torch.where(self._hidden_frames.unsqueeze(-1), self.mask_embedding.to(output.dtype), output)

    def forward(self, waveforms: Tensor, hidden: Tensor | None, targets: Targets) -> dict[str, Tensor]:
        """Losses and accuracies.

        Args:
            waveforms: (B, S), disturbed.
            hidden: frames that are hidden, (B, T) bool; None for none.
            targets: of the undisturbed waveforms.
        """
        self._hidden_frames = hidden
        states = self.encoder(waveforms).hidden_states
        self._hidden_frames = None
        result: dict[str, Tensor] = {}
        loss = torch.zeros((), device=waveforms.device)
        for name, index in HEADS.items():
            logits = self.heads[name](states[index]).float().flatten(0, 1)
            units = targets.units[name].flatten()
            result[name] = F.cross_entropy(logits, units)
            result[f"{name}_accuracy"] = (logits.detach().argmax(-1) == units).float().mean()
            predicted = self.regressions[name](states[index]).float()
            cosine = F.cosine_similarity(predicted, targets.states[name], dim=-1).mean()
            result[f"{name}_regression"] = F.l1_loss(predicted, targets.states[name]) + 1 - cosine
            loss = loss + WEIGHTS[name] * (result[name] + 2 * result[f"{name}_regression"])
        error = (self.speakers(states[SPEAKERS]).float() - targets.speakers).square().mean(-1)
        voiced = targets.voiced.float()
        result["speakers"] = (error * voiced).sum() / voiced.sum().clamp(min=1)
        result["loss"] = loss + result["speakers"]
        return result


def learning_rate(progress: float, peak: float, warmup: float = 0.06) -> float:
    """Linear warm-up, then a cosine down to 2 %."""
    if progress < warmup:
        return peak * progress / warmup
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - warmup) / (1 - warmup)))))


@torch.no_grad()
def validate(model: Pretraining, corpus: Corpus, content: ContentTargets) -> dict[str, float]:
    """Means over the held-out utterances, undisturbed; without the speakers."""
    model.eval()
    results = []
    for waveforms in corpus.held_out_rows():
        states, units = content(waveforms)
        none = torch.zeros(*units["last"].shape, model.speakers.out_features, device=waveforms.device)
        targets = Targets(states=states, units=units, speakers=none, voiced=none[..., 0] > 0)
        results.append(model(waveforms, None, targets))
    model.train()
    kept = [key for key in results[0] if key not in ("speakers", "loss")]
    return {f"held_out_{key}": float(torch.stack([result[key] for result in results]).mean()) for key in kept}


def save(
    path: Path, model: Pretraining, optimizer: torch.optim.Optimizer, progress: dict[str, float]
) -> None:
    """Write a checkpoint, all of it or nothing."""
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), **progress}
    torch.save(state, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").replace(path)


def main() -> None:
    """Train for the given time, resuming from the last checkpoint if there is one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--whisper", type=Path, required=True, help="folder that whisper.py wrote")
    parser.add_argument(
        "--corpus", type=Path, required=True, help="folder of corpus.py, targets.py, speakers.py"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints and the log")
    parser.add_argument("--minutes", type=float, default=60.0, help="training time on the clock")
    parser.add_argument("--learning-rate", type=float, default=1.5e-3)
    parser.add_argument("--seconds-per-batch", type=float, default=480.0)
    parser.add_argument("--checkpoint-steps", type=int, default=500, help="updates between checkpoints")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    device = torch.device(arguments.device)
    arguments.out.mkdir(parents=True, exist_ok=True)
    checkpoint, log = arguments.out / "checkpoint.pt", arguments.out / "log.jsonl"
    model = Pretraining().to(device)
    decayed = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}],
        lr=arguments.learning_rate,
        betas=(0.9, 0.98),
        fused=True,
    )
    progress = {"step": 0, "elapsed": 0.0, "audio_seconds": 0.0}
    if checkpoint.is_file():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        progress = {key: state[key] for key in progress}
        torch.manual_seed(arguments.seed + int(progress["step"]))
    corpus = Corpus(arguments.corpus, device, seed=arguments.seed + int(progress["step"]))
    content = ContentTargets(arguments.whisper, arguments.corpus / "statistics.safetensors").to(device)
    speakers = SpeakerTargets(arguments.corpus, corpus).to(device)
    disturbance = Disturbance()
    parameters = model.encoder.parameter_count / 1e6
    print(f"{corpus.hours:.2f} h of audio, {parameters:.2f} M parameters", flush=True)
    lengths = torch.Generator().manual_seed(arguments.seed + int(progress["step"]))
    began, budget = time.monotonic() - progress["elapsed"], arguments.minutes * 60
    sums: dict[str, Tensor] = {}
    while (elapsed := time.monotonic() - began) < budget:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(elapsed / budget, arguments.learning_rate)
        seconds = ROW_SECONDS[int(torch.randint(len(ROW_SECONDS), (), generator=lengths))]
        rows = corpus.rows(
            max(2, round(arguments.seconds_per_batch / seconds)), int(seconds * SAMPLE_RATE_HZ)
        )
        states, units = content(rows.waveforms)
        waveforms, factor = disturbance.mix(rows.waveforms)
        heard, voiced = speakers(rows, factor)
        targets = Targets(states=states, units=units, speakers=heard, voiced=voiced)
        hidden = disturbance.hidden_frames((heard.shape[0], heard.shape[1]), device)
        with torch.autocast(device.type, torch.bfloat16):
            result = model(waveforms, hidden, targets)
        result["loss"].backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad()
        progress["step"] += 1
        progress["elapsed"] = time.monotonic() - began
        progress["audio_seconds"] += waveforms.numel() / SAMPLE_RATE_HZ
        for key, value in result.items():
            sums[key] = sums.get(key, 0) + value.detach()
        if progress["step"] % 50 == 0:
            record = {**progress, **{key: float(value) / 50 for key, value in sums.items()}}
            sums = {}
            if progress["step"] % arguments.checkpoint_steps == 0:
                record |= validate(model, corpus, content)
                save(checkpoint, model, optimizer, progress)
            with log.open("a") as file:
                file.write(json.dumps(record) + "\n")
            print(" ".join(f"{key}={value:.4g}" for key, value in record.items()), flush=True)
    save(checkpoint, model, optimizer, progress)
    print(json.dumps({**progress, **validate(model, corpus, content)}), flush=True)


if __name__ == "__main__":
    main()
