"""Operations of a step of WavLM-Base+ on a GPU, as slimvox computes them and in other ways, one at a time.

    python benchmarks/memory/alternatives.py

The sizes are those of 640 s of audio in clips of 15.6 s. A row is the median of five runs between two events of the
device, forward alone and with all gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F
from torch import Tensor

CLIPS, SAMPLES, FRAMES, CHANNELS, WIDTH, HEADS = 41, 249_600, 779, 512, 768, 12
FIRST_STEPS = 49_919
"""Length of the first convolution's output."""
RUNS = 5


def milliseconds(run: Callable[[], object]) -> float:
    """Median time on the device, after a run that is not counted."""
    run()
    times = []
    for _ in range(RUNS):
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        began.record()
        run()
        ended.record()
        torch.cuda.synchronize()
        times.append(began.elapsed_time(ended))
    return median(times)


def show(name: str, operation: Callable[..., Tensor], *inputs: Tensor) -> None:
    """Print the times of an operation on its inputs, of which those with a gradient get one."""
    trained = [each for each in inputs if each.requires_grad]

    @torch.no_grad()
    def forward() -> None:
        operation(*inputs)

    def gradients() -> None:
        y = operation(*inputs)
        torch.autograd.grad(y, trained, torch.ones_like(y))

    print(f"{milliseconds(forward):8.2f} {milliseconds(gradients):8.2f} ms  {name}", flush=True)
    torch.cuda.empty_cache()


def drawn(*shape: int, dtype: torch.dtype = torch.bfloat16, trained: bool = True) -> Tensor:
    """Random numbers on the device."""
    return torch.randn(shape, device="cuda", dtype=dtype).requires_grad_(trained)


def front_end() -> None:
    """The first two convolutions and the norm between them."""
    weight, wave = drawn(CHANNELS, 1, 10), drawn(CLIPS, 1, SAMPLES, trained=False)
    show("first convolution", lambda k: F.conv1d(wave, k, stride=5), weight)
    windows = wave.squeeze(1).unfold(-1, 10, 5)
    show("first convolution as a matrix product", lambda k: (windows @ k.squeeze(1).mT).mT, weight)
    x, scale, shift = (
        drawn(CLIPS, CHANNELS, FIRST_STEPS),
        *(drawn(CHANNELS, dtype=torch.float32) for _ in range(2)),
    )

    def norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return F.gelu(F.group_norm(x.float(), CHANNELS, scale, shift)).bfloat16()

    def half_norm(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        return F.gelu(F.group_norm(x, CHANNELS, scale.bfloat16(), shift.bfloat16()))

    show("group norm and GELU in float32", norm, x, scale, shift)
    show("group norm and GELU in bfloat16", half_norm, x, scale, shift)
    weight = drawn(CHANNELS, CHANNELS, 3)
    show("second convolution", lambda x, k: F.conv1d(x, k, stride=2), x, weight)
    wide, flat = (
        each.detach().unsqueeze(2).to(memory_format=torch.channels_last).requires_grad_()
        for each in (x, weight)
    )
    show("second convolution, channels last", lambda x, k: F.conv2d(x, k, stride=(1, 2)), wide, flat)


def attention() -> None:
    """The bias of the scores, and attention with it."""
    for frames in (FRAMES, -(-FRAMES // 8) * 8):
        heads = [drawn(CLIPS, HEADS, frames, WIDTH // HEADS) for _ in range(3)]
        bias = drawn(CLIPS, HEADS, frames, frames)
        show(f"attention, {frames} frames", F.scaled_dot_product_attention, *heads)
        show(f"attention with a bias, {frames} frames", F.scaled_dot_product_attention, *heads, bias)
    scales = drawn(CLIPS, HEADS, FRAMES, 1, dtype=torch.float32)
    pairs = drawn(HEADS, FRAMES, FRAMES, dtype=torch.float32)
    show("gated bias in float32", lambda s, p: (s * p).bfloat16(), scales, pairs)
    show("gated bias in bfloat16", lambda s, p: s.bfloat16() * p.bfloat16(), scales, pairs)


def position() -> None:
    """The positional convolution, by cuDNN and by Fourier transform."""
    groups, taps, size = 16, 128, 1024
    for dtype in (torch.float32, torch.bfloat16):
        x, weight = drawn(CLIPS, WIDTH, FRAMES, dtype=dtype), drawn(WIDTH, WIDTH // groups, taps, dtype=dtype)
        show(
            f"positional convolution in {dtype}",
            lambda x, w: F.conv1d(x, w, padding=64, groups=16),
            x,
            weight,
        )

    def spectral(x: Tensor, weight: Tensor) -> Tensor:
        spectrum = torch.fft.rfft(weight.flip(-1), n=size).unflatten(0, (groups, -1)).permute(0, 3, 2, 1)
        transformed = torch.fft.rfft(x, n=size).unflatten(1, (groups, -1)).permute(1, 3, 0, 2)
        y: Tensor = torch.fft.irfft((transformed @ spectrum).permute(2, 0, 3, 1), n=size)
        return y.flatten(1, 2)[..., taps // 2 - 1 :][..., : x.shape[-1]]

    x, weight = (each.detach().float().requires_grad_() for each in (x, weight))
    show("positional convolution by Fourier transform", spectral, x, weight)


if __name__ == "__main__":
    print("forward and with gradients")
    front_end()
    attention()
    position()
