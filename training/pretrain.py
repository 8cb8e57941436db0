"""Pre-trains the small WavLM that slimvox embeds.

Masked prediction as in HuBERT, denoising as in WavLM: spans of frames are hidden and other speech or noise is
mixed in, and the network predicts, for every frame of the clean speech, the cluster of a pretrained network's states
(its last layer from the top of ours, a middle layer from our middle), and the last states themselves. The schedule
runs on the clock, so that a busy machine still ends on time.

    python training/pretrain.py --targets TARGETS --out runs/teacher --minutes 60
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

from corpus import Batch, Corpus
from slimvox.checkpoint.transformers_reader import anatomy_from_config
from slimvox.encoder import SpeechEncoder

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
MIDDLE = 7
"""Hidden state that predicts the clusters of the target network's middle layer."""


class Pretraining(nn.Module):
    """The encoder with what only pre-training needs."""

    def __init__(self, units: int = 500, state_width: int = 512) -> None:
        super().__init__()
        anatomy = anatomy_from_config(dict(CONFIG), "training/pretrain.py", normalize_waveform=False)
        self.encoder = SpeechEncoder(anatomy)
        width = anatomy.width
        self.mask_embedding = nn.Parameter(torch.rand(width) - 0.5)
        self.heads = nn.ModuleDict({"last": nn.Linear(width, units), "mid": nn.Linear(width, units)})
        self.regression = nn.Linear(width, state_width)
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

    def forward(self, batch: Batch, hidden: Tensor | None) -> dict[str, Tensor]:
        """Losses and accuracies; `hidden` (B, T) bool says which frames are masked."""
        self._hidden_frames = hidden
        states = self.encoder(batch.waveforms).hidden_states
        self._hidden_frames = None
        result: dict[str, Tensor] = {}
        for name, state in (("last", states[-1]), ("mid", states[MIDDLE])):
            logits = self.heads[name](state).float().flatten(0, 1)
            target = batch.units[name].flatten()
            result[name] = F.cross_entropy(logits, target)
            result[f"{name}_accuracy"] = (logits.detach().argmax(-1) == target).float().mean()
        predicted = self.regression(states[-1]).float()
        result["regression"] = F.l1_loss(predicted, batch.states) + (
            1 - F.cosine_similarity(predicted, batch.states, dim=-1).mean()
        )
        result["loss"] = result["last"] + 0.5 * result["mid"] + 2.0 * result["regression"]
        return result


def hidden_frames(shape: tuple[int, int], share: float, span: int, generator: torch.Generator) -> Tensor:
    """Random spans of `span` frames that cover about `share` of (B, T)."""
    starts = torch.rand(shape, generator=generator) < -math.log(1 - share) / span
    return F.max_pool1d(F.pad(starts.float(), (span - 1, 0)).unsqueeze(1), span, 1).squeeze(1) > 0


def disturbed(waveforms: Tensor, speech: float, noisy: float, generator: torch.Generator) -> Tensor:
    """Mix other speech of the batch into a share of the clips and white noise into another, at 0 to 20 dB SNR."""
    count = len(waveforms)
    other = waveforms[torch.randperm(count, generator=generator)]
    noise = torch.randn(waveforms.shape, generator=generator)
    kind = torch.rand(count, 1, generator=generator)
    added = torch.where(kind < speech, other, torch.where(kind < speech + noisy, noise, torch.zeros(())))
    power = waveforms.square().mean(-1, keepdim=True)
    snr = 20 * torch.rand(count, 1, generator=generator)
    scale = (power / added.square().mean(-1, keepdim=True).clamp(min=1e-8) * 10 ** (-snr / 10)).sqrt()
    return waveforms + added * scale


def learning_rate(progress: float, peak: float, warmup: float = 0.06) -> float:
    """Linear warm-up, then a cosine down to 2 %."""
    if progress < warmup:
        return peak * progress / warmup
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - warmup) / (1 - warmup)))))


@torch.no_grad()
def validate(model: Pretraining, corpus: Corpus) -> dict[str, float]:
    """Means over the held-out utterances, nothing hidden."""
    model.eval()
    results = [model(batch, None) for batch in corpus.held_out_batches()]
    model.train()
    return {f"held_out_{key}": float(torch.stack([r[key] for r in results]).mean()) for key in results[0]}


def main() -> None:
    """Train for the given time, resuming from the last checkpoint if there is one."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--targets", type=Path, required=True, help="folder that targets.py wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints and the log")
    parser.add_argument("--minutes", type=float, default=60.0, help="training time on the clock")
    parser.add_argument(
        "--initial", type=Path, help="checkpoint of an earlier run to start a new schedule from"
    )
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seconds-per-batch", type=float, default=40.0)
    parser.add_argument("--crop-seconds", type=float, default=5.0)
    parser.add_argument("--masked-clips", type=float, default=1.0, help="share of clips with hidden frames")
    parser.add_argument("--mixed-clips", type=float, default=0.25, help="share with other speech mixed in")
    parser.add_argument("--noisy-clips", type=float, default=0.15, help="share with white noise mixed in")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    corpus, model = Corpus(arguments.targets), Pretraining()
    decayed = [p for p in model.parameters() if p.dim() > 1]
    plain = [p for p in model.parameters() if p.dim() <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}],
        lr=arguments.learning_rate,
        betas=(0.9, 0.98),
        fused=True,
    )
    arguments.out.mkdir(parents=True, exist_ok=True)
    checkpoint, log = arguments.out / "checkpoint.pt", arguments.out / "log.jsonl"
    step, elapsed, audio_seconds = 0, 0.0, 0.0
    resumed = checkpoint if checkpoint.is_file() else arguments.initial
    if resumed is not None:
        state = torch.load(resumed, weights_only=True)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        step, audio_seconds = state["step"], state["audio_seconds"]
        elapsed = state["elapsed"] if resumed == checkpoint else 0.0
    generator = torch.Generator().manual_seed(arguments.seed + step)
    batches = corpus.batches(
        arguments.seed + step,
        seconds_per_batch=arguments.seconds_per_batch,
        crop_seconds=arguments.crop_seconds,
    )
    print(
        f"{corpus.hours:.2f} h of audio, {model.encoder.parameter_count / 1e6:.2f} M parameters", flush=True
    )
    elapsed_before, heard_before = elapsed, audio_seconds
    began, running, budget = time.monotonic() - elapsed, {}, arguments.minutes * 60
    while (elapsed := time.monotonic() - began) < budget:
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(elapsed / budget, arguments.learning_rate)
        clean = next(batches)
        waveforms = disturbed(clean.waveforms, arguments.mixed_clips, arguments.noisy_clips, generator)
        batch = Batch(waveforms=waveforms, units=clean.units, states=clean.states)
        shape = (batch.states.shape[0], batch.states.shape[1])
        hidden = hidden_frames(shape, 0.3, 8, generator)
        hidden &= torch.rand(shape[0], 1, generator=generator) < arguments.masked_clips
        with torch.autocast("cpu", torch.bfloat16):
            result = model(batch, hidden)
        result["loss"].backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        optimiser.zero_grad()
        step += 1
        audio_seconds += batch.waveforms.numel() / 16_000
        for key, value in result.items():
            number = float(value.detach())
            running[key] = 0.98 * running.get(key, number) + 0.02 * number
        if step % 50 == 0:
            record = {"step": step, "minutes": elapsed / 60, "audio_hours": audio_seconds / 3600, **running}
            record["audio_seconds_per_second"] = (audio_seconds - heard_before) / (elapsed - elapsed_before)
            if step % 500 == 0:
                record |= validate(model, corpus)
                state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": step}
                state |= {"elapsed": elapsed, "audio_seconds": audio_seconds}
                torch.save(state, checkpoint.with_suffix(".tmp"))
                checkpoint.with_suffix(".tmp").replace(checkpoint)
            with log.open("a") as file:
                file.write(json.dumps(record) + "\n")
            print(" ".join(f"{k}={v:.4g}" for k, v in record.items()), flush=True)
    state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": step}
    state |= {"elapsed": elapsed, "audio_seconds": audio_seconds}
    torch.save(state, checkpoint.with_suffix(".tmp"))
    checkpoint.with_suffix(".tmp").replace(checkpoint)
    print(
        json.dumps({"step": step, "audio_hours": audio_seconds / 3600, **validate(model, corpus)}), flush=True
    )


if __name__ == "__main__":
    main()
