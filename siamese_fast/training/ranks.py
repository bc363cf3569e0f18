"""Training on several ranks: the same weights everywhere, gradients averaged, one decision for all.

    gradient of a parameter = mean over ranks of the gradient of each rank's loss

which is what DDP computes; here in one all_reduce after the backward pass, so that losses with parameters,
heads and encoding in chunks need nothing of their own.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from siamese_fast.distributed.world import World


class Ranks(World):
    """The ranks that train together."""

    def synchronise(self, *modules: nn.Module) -> None:
        """Parameters and buffers of rank 0, on every rank."""
        with torch.no_grad():
            for module in modules:
                for value in [*module.parameters(), *module.buffers()]:
                    self.broadcast(value.data)

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """A parameter without a gradient on any rank keeps none: weight decay is not for it."""
        if self.size == 1:
            return
        of_dtype: dict[torch.dtype, list[nn.Parameter]] = {}
        for parameter in parameters:
            of_dtype.setdefault(parameter.dtype, []).append(parameter)
        for same in of_dtype.values():
            present = same[0].new_tensor([p.grad is not None for p in same])
            grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in same]
            total = self.sum(torch.cat([present, *(grad.flatten() for grad in grads)]))
            used, *parts = total.split([len(same), *(p.numel() for p in same)])
            for parameter, part, count in zip(same, parts, used.tolist(), strict=True):
                if count:
                    parameter.grad = part.view_as(parameter).div(self.size)

    def mean(self, value: float) -> float:
        return float(self.sum(torch.tensor(value, dtype=torch.float64, device=self.device))) / self.size

    def any(self, flag: bool) -> bool:
        return bool(self.maximum(torch.tensor(int(flag), device=self.device)))

    def gather_states(self, state: dict[str, Any]) -> list[dict[str, Any]]:
        """The `state_dict` of every rank: tensors, numbers, strings and containers of them."""
        file = io.BytesIO()
        torch.save(state, file)
        data = torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8).to(self.device)
        return [
            torch.load(io.BytesIO(part.cpu().numpy().tobytes()), weights_only=True)
            for part in self.gather_list(data)
        ]
