"""What the tests of the drop-ins share: rows, and a loss of ours against the library's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

LOSSES = (
    "NTXentLoss",
    "SupConLoss",
    "MultiSimilarityLoss",
    "CircleLoss",
    "ContrastiveLoss",
    "TripletMarginLoss",
)
MINERS = ("BatchHardMiner", "BatchEasyHardMiner", "TripletMarginMiner", "MultiSimilarityMiner")


def rows(count: int, seed: int, depth: int = 5) -> Tensor:
    return torch.randn(count, depth, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def same(mine: Any, library: Any, *given: Any, **named: Any) -> None:
    """Values, and gradients in every floating tensor among the arguments."""
    leaves = [t for t in (*given, *named.values()) if isinstance(t, Tensor) and t.is_floating_point()]
    for leaf in leaves:
        leaf.requires_grad_()
    got, want = mine(*given, **named), library(*given, **named)
    assert got.dtype == want.dtype and got.shape == want.shape
    torch.testing.assert_close(got, want)
    for ours, theirs in zip(_gradients(got, leaves), _gradients(want, leaves), strict=True):
        torch.testing.assert_close(ours, theirs)


def _gradients(loss: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    found = torch.autograd.grad(loss, leaves, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for g, x in zip(found, leaves, strict=True)]
