"""The losses of all ranks' rows as one number, the same on every rank.

    L = sum over components c of  (sum over ranks and rows of loss_c) / (sum over ranks and rows of count_c)

Sums run in float64 and in the order of the ranks. The gradient is that of the sum over ranks of what each
makes of L: W times that of L where all do the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from siamese_fast.distributed.world import World


class Reduced(torch.autograd.Function):
    """`Reduced.apply(losses, counted, world)`: losses `[N]` or `[N, C]` over what `counted`, of that shape,
    adds up to, at least 1; their sum where it is None.
    """

    @staticmethod
    def forward(ctx: Any, losses: Tensor, counted: Tensor | None, world: World) -> Tensor:
        sums = losses.double().sum(0)
        counts = torch.ones_like(sums) if counted is None else counted.double().sum(0)
        total, count = world.gather(torch.stack([sums, counts])).cumsum(0)[-1]
        ctx.scale = count.clamp_min(1).reciprocal() if counted is not None else torch.ones_like(count)
        ctx.world, ctx.shape, ctx.dtype = world, losses.shape, losses.dtype
        reduced: Tensor = (total * ctx.scale).sum().to(losses.dtype)
        return reduced

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        slope = (ctx.world.sum(grad.double()) * ctx.scale).to(ctx.dtype)
        return slope.expand(ctx.shape).contiguous(), None, None
