"""A few real steps on an encoder of WavLM-Base+'s size (random weights): speed and memory, printed."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import numpy as np
import pytest
import soundfile

import models
import slimvox


@pytest.mark.slow
def test_a_few_steps_on_a_model_of_base_plus_size(tmp_path: Path) -> None:
    size = {"hidden_size": 768, "num_attention_heads": 12, "num_hidden_layers": 12, "intermediate_size": 3072}
    front_end = {
        "conv_dim": (512,) * 7,
        "conv_kernel": (10, 3, 3, 3, 3, 2, 2),
        "conv_stride": (5, 2, 2, 2, 2, 2, 2),
    }
    position = {"num_conv_pos_embeddings": 128, "num_conv_pos_embedding_groups": 16, "num_buckets": 320}
    teacher = models.directory(
        tmp_path / "teacher", "wavlm", **size, **front_end, **position, max_bucket_distance=800
    )
    for number in range(8):
        noise = np.random.default_rng(number).standard_normal(16_000 * 8)
        soundfile.write(tmp_path / f"{number}.wav", 0.1 * noise, 16_000)
    settings = ["data.seconds_per_batch=16.0", "data.max_seconds=8.0", "data.held_out_seconds=0.0"]
    result = slimvox.prune(
        teacher,
        [tmp_path / f"{number}.wav" for number in range(8)],
        tmp_path / "out",
        recipe="paper",
        overrides=settings,
        max_steps=6,
        device="cpu",
    )
    assert result.parameters_dense == 94_381_936 - 768 - 128
    assert 0.995 * 0.28 <= result.parameters / result.parameters_dense <= 0.28
    log = (tmp_path / "out" / "run" / "log.jsonl").read_text().splitlines()
    speeds = {record["stage"]: record["audio_seconds_per_second"] for record in map(json.loads, log)}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"WavLM-Base+ size: {speeds} audio seconds per second, peak memory {peak:.1f} GiB")
