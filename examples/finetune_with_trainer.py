"""Fine-tune a pruned encoder with a classification head, using transformers' Trainer.

The task is synthetic, so that the script needs no data: a clip of noise contains a low or a high tone, and the model
learns to tell which.

    python examples/finetune_with_trainer.py runs/small --out runs/tones
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForAudioClassification, Trainer, TrainingArguments

import slimvox

TONES_HZ = (400.0, 1_600.0)
SAMPLE_RATE_HZ = 16_000


class Tones(torch.utils.data.Dataset[dict[str, Any]]):
    """Clips of one second: noise with a low (label 0) or a high (label 1) tone."""

    def __init__(self, clips: int, seed: int) -> None:
        random = np.random.default_rng(seed)
        self.labels = random.integers(len(TONES_HZ), size=clips)
        time = np.arange(SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
        frequencies = np.take(TONES_HZ, self.labels)[:, None]
        tones = np.sin(2 * np.pi * frequencies * time + random.uniform(0, 2 * np.pi, (clips, 1)))
        noise = random.standard_normal((clips, SAMPLE_RATE_HZ))
        self.waveforms = (0.1 * tones + 0.05 * noise).astype(np.float32)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"input_values": self.waveforms[index], "labels": self.labels[index]}


def accuracy(prediction: Any) -> dict[str, float]:
    """Share of correct labels."""
    return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


def finetune(model_directory: str | Path, out: Path, *, epochs: float, clips: int) -> float:
    """Fine-tune the model in a directory, save the result, and return its accuracy on new clips."""
    slimvox.register_auto_classes()
    torch.manual_seed(0)
    model = AutoModelForAudioClassification.from_pretrained(
        str(model_directory), num_labels=len(TONES_HZ), classifier_proj_size=32, use_weighted_layer_sum=True
    )
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(out / "checkpoints"),
            num_train_epochs=epochs,
            per_device_train_batch_size=8,
            learning_rate=1e-3,
            logging_strategy="no",
            save_strategy="no",
            report_to=[],
        ),
        train_dataset=Tones(clips, seed=0),
        eval_dataset=Tones(64, seed=1),
        compute_metrics=accuracy,
    )
    trainer.train()
    trainer.save_model(
        str(out)
    )  # the directory loads with from_pretrained, and exports with slimvox export --heads
    return trainer.evaluate()["eval_accuracy"]


def main() -> None:
    """Read the arguments and fine-tune."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="directory written by slimvox prune")
    parser.add_argument("--out", type=Path, required=True, help="directory for the fine-tuned model")
    parser.add_argument("--epochs", type=float, default=3.0, help="passes over the training clips")
    parser.add_argument("--clips", type=int, default=128, help="number of training clips")
    arguments = parser.parse_args()
    result = finetune(arguments.model, arguments.out, epochs=arguments.epochs, clips=arguments.clips)
    print(f"accuracy on 64 new clips: {result:.0%}; saved to {arguments.out}")


if __name__ == "__main__":
    main()
