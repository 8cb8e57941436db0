"""One step of stage 1 on an encoder of WavLM-Base+'s size: as slimvox does it, and the plain way."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))

import torch
import torch.nn.functional as F
from checkout import commit
from shapes import base_plus
from stages import make_stage
from torch import Tensor, nn

from slimvox.audio import AudioBatch
from slimvox.encoder import SpeechEncoder
from slimvox.encoder.attention import SelfAttention
from slimvox.pruning import update
from slimvox.pruning.budget import Lagrangian
from slimvox.pruning.masks import Masks
from slimvox.pruning.optimisers import MATRICES, build_optimisers
from slimvox.pruning.recipe import load_recipe
from slimvox.pruning.stage import Stage
from slimvox.structures import Address
from slimvox.util.timing import seconds_in_turns

BATCH, SECONDS = 4, 8.0


def compare(runs: int, structures: str) -> dict[str, list[float]]:
    """Seconds of interleaved steps by way, after one of each that is not counted.

    Args:
        runs: timed steps of each.
        structures: `paper` (front end trained, not gated) or `fast` (gated too).
    """
    waveforms = 0.1 * torch.randn(BATCH, int(16_000 * SECONDS), generator=torch.Generator().manual_seed(0))
    ways = {"plain": plain_step(structures), "slimvox": slimvox_step(structures)}
    return seconds_in_turns({name: partial(step, waveforms) for name, step in ways.items()}, runs)


def slimvox_step(structures: str) -> Callable[[Tensor], object]:
    """The training loop's own step."""
    return _stage_step(structures)[1]


def _stage_step(structures: str) -> tuple[Stage, Callable[[Tensor], object]]:
    stage = make_stage(base_plus(), structures)

    def step(waveforms: Tensor) -> None:
        clips, samples = waveforms.shape
        batch = AudioBatch(
            waveforms=waveforms,
            seconds=clips * samples / 16_000,
            step=0,
            slots=tuple(range(clips)),
            planned=clips,
        )
        stage._train_step(iter([batch]))

    return stage, step


def plain_step(structures: str) -> Callable[[Tensor], object]:
    """Float32, attention with its scores and softmax written out, masks multiplied onto activations, a Lagrangian."""
    stage, recipe = make_stage(base_plus(), structures), load_recipe(structures)
    teacher, student = stage.teacher, stage.student
    encoder, gates, lagrangian = student.encoder, student.gates, student.lagrangian or Lagrangian()
    assert gates is not None
    student.lagrangian = lagrangian
    for model in (teacher, encoder):
        for layer in model.layers:
            layer.attention = PlainAttention(layer.attention)
    optimisers = build_optimisers(student, recipe.prune, recipe.gates)

    def step(waveforms: Tensor) -> None:
        with torch.no_grad():
            wanted = teacher(waveforms)
        with masked_activations(encoder, gates.sample()):
            output = encoder(waveforms)
        sparsity = student.expected_sparsity()
        loss = student.distillation(output, wanted).total + lagrangian(sparsity, 0.1)
        loss.backward()
        nn.utils.clip_grad_norm_(student.weights(), recipe.prune.gradient_clip)
        for optimiser in optimisers.values():
            optimiser.step()
            optimiser.zero_grad()

    return step


class PlainAttention(nn.Module):
    """Self-attention as papers write it, with the parameters of a `SelfAttention` of equal heads."""

    def __init__(self, fast: SelfAttention) -> None:
        super().__init__()
        self.heads, self.scale = fast.heads, fast.scale
        self.q_proj, self.k_proj, self.v_proj = fast.q_proj, fast.k_proj, fast.v_proj
        self.out_proj, self.gate = fast.out_proj, fast.gate

    def forward(self, x: Tensor, position_bias: Tensor | None, padding_bias: Tensor | None) -> Tensor:
        """See `SelfAttention.forward`."""
        q, k, v = (
            each(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for each in (self.q_proj, self.k_proj, self.v_proj)
        )
        scores = q @ k.transpose(-1, -2) * self.scale
        if self.gate is not None:
            scores = scores + self.gate(x, position_bias)
        if padding_bias is not None:
            scores = scores + padding_bias
        return self.out_proj((F.softmax(scores, -1) @ v).transpose(1, 2).flatten(2))


@contextlib.contextmanager
def masked_activations(encoder: SpeechEncoder, masks: Masks) -> Iterator[None]:
    """Multiply what the masked modules put out, or take in, while the context is open."""
    handles = []

    def scale_output(module: nn.Module, mask: Tensor) -> None:
        handles.append(module.register_forward_hook(lambda *call: call[2] * mask))

    def scale_input(module: nn.Module, mask: Tensor) -> None:
        handles.append(module.register_forward_pre_hook(lambda *call: (call[1][0] * mask,)))

    for index, layer in enumerate(encoder.feature_extractor.conv_layers):
        if Address("conv", index) in masks:
            scale_output(layer, masks[Address("conv", index)][:, None])
    for index, layer in enumerate(encoder.layers):
        attention, feed_forward = layer.attention, layer.feed_forward
        scale_output(attention, masks[Address("attention", index)])
        scale_output(attention.q_proj, masks[Address("qk", index)])
        scale_input(attention.out_proj, masks[Address("vo", index)])
        heads = masks[Address("head", index)].repeat_interleave(encoder.anatomy.head_width)
        scale_input(attention.out_proj, heads)
        scale_output(feed_forward, masks[Address("feed_forward", index)])
        scale_input(feed_forward.output_dense, masks[Address("intermediate", index)])
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def table(runs: int) -> str:
    """Seconds of interleaved steps of either way as Markdown."""
    lines = ["| recipe | plain way, s | slimvox, s | ratio of medians |", "|---|---|---|---|"]
    for structures in ("paper", "fast"):
        times = {name: median(each) for name, each in compare(runs, structures).items()}
        ratio = times["plain"] / times["slimvox"]
        lines.append(f"| `{structures}` | {times['plain']:.2f} | {times['slimvox']:.2f} | {ratio:.2f}x |")
    return "\n".join([*lines, "", stamp("paper"), stamp("fast")])


def parts_table(runs: int, recipe: str = "fast") -> str:
    """CPU seconds of the parts of a step as Markdown, after one step that is not counted."""
    stage, step = _stage_step(recipe)
    waveforms = 0.1 * torch.randn(BATCH, int(16_000 * SECONDS), generator=torch.Generator().manual_seed(0))
    times: dict[str, list[float]] = {}

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            began = time.process_time()
            result = function(*arguments, **named)
            times.setdefault(name, []).append(time.process_time() - began)
            return result

        return call

    stage.teacher.forward = timed("teacher", stage.teacher.forward)  # type: ignore[method-assign]
    stage.student.forward = timed("student, forward", stage.student.forward)  # type: ignore[method-assign]
    stage.accelerator.backward = timed("backward", stage.accelerator.backward)
    for name, optimiser in stage.optimisers.items():
        optimiser.step = timed("Muon" if name == MATRICES else "other optimisers", optimiser.step)  # type: ignore[method-assign]
    update.project = timed("projection of the gates", update.project)
    for _ in range(runs + 1):
        timed("whole step", step)(waveforms)
    lines = ["| part | CPU s |", "|---|---|"]
    for name, each in times.items():
        calls = len(each) // (runs + 1)
        steps = [sum(each[start : start + calls]) for start in range(calls, len(each), calls)]
        lines.append(f"| {name} | {median(steps):.2f} |")
    return "\n".join([*lines, "", stamp(recipe)])


def stamp(recipe: str) -> str:
    """The recipe and the commit of a measurement; a test fails when the recipe has changed since."""
    return f"Measured with recipe `{recipe}` (`{load_recipe(recipe).digest}`) at commit `{commit()}`."
