"""How many fp32 instructions a second a GPU issues: multiply-adds in registers, eight chains a thread."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK, STEPS, CHAINS = 256, 4096, 8


@triton.jit
def _chains(p_out, STEPS: tl.constexpr, BLOCK: tl.constexpr):
    x = tl.arange(0, BLOCK).to(tl.float32) * 1e-3
    a, b, c, d, e, f, g, h = x, x + 1, x + 2, x + 3, x + 4, x + 5, x + 6, x + 7
    for _ in range(STEPS):
        a, b, c, d = a * x + 0.5, b * x + 0.5, c * x + 0.5, d * x + 0.5
        e, f, g, h = e * x + 0.5, f * x + 0.5, g * x + 0.5, h * x + 0.5
    tl.store(p_out + tl.program_id(0) * BLOCK + tl.arange(0, BLOCK), a + b + c + d + e + f + g + h)


def _size(device: str) -> tuple[int, int]:
    """Blocks and steps; on the CPU, interpreted, as few as try the code."""
    if device != "cuda":
        return 1, 8
    return 32 * torch.cuda.get_device_properties(0).multi_processor_count, STEPS


def instructions(device: str) -> float:
    """Of one lane each: what `run` does."""
    blocks, steps = _size(device)
    return float(blocks) * BLOCK * steps * CHAINS


def run(device: str) -> Tensor:
    blocks, steps = _size(device)
    out = torch.empty(blocks * BLOCK, device=device)
    _chains[(blocks,)](out, STEPS=steps, BLOCK=BLOCK, num_warps=BLOCK // 32)
    return out
