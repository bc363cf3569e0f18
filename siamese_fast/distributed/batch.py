"""What every rank brings to a loss over all ranks, how it is checked, and how it travels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from siamese_fast.distributed.blocks import gathered, packed_bytes, ring
from siamese_fast.distributed.world import World
from siamese_fast.ops import _checks as check
from siamese_fast.ops.hardest_pairs import mining_arguments

STRATEGIES = ("auto", "ring", "gather")
GATHER_BYTES = 1 << 22
"""`strategy="auto"` gathers while all blocks together are no larger: a default; docs/scaling.md has times."""

Blocks = Callable[[World, Tensor, Tensor, Sequence[int]], Iterator[tuple[int, Tensor, Tensor]]]


class Batch(NamedTuple):
    x: Tensor
    labels: Tensor
    ref: Tensor | None
    ref_labels: Tensor | None
    self_index: Tensor | None


def checked_batch(
    world: World,
    x: Tensor,
    labels: Tensor,
    ref: Tensor | None,
    ref_labels: Tensor | None,
    self_index: Tensor | None,
) -> Batch:
    x, labels, ref, ref_labels, _ = mining_arguments(x, labels, ref, ref_labels, None)
    world.check_device("x", x)
    if self_index is not None:
        if ref is None:
            raise ValueError("self_index needs ref: without ref a row is never paired with itself")
        check.labels("self_index", self_index, x.shape[0], x)
        self_index = self_index.to(torch.int64)
        if self_index.numel() and int(self_index.min()) < -1:
            raise IndexError(f"self_index must be -1 or a row of ref, got {int(self_index.min())}")
    return Batch(x, labels, ref, ref_labels, self_index)


def sizes_of(batch: Batch) -> list[int]:
    """Anchors, candidates, and the largest self index."""
    highest = -1
    if batch.self_index is not None and batch.self_index.numel():
        highest = int(batch.self_index.max())
    return [batch.x.shape[0], (batch.x if batch.ref is None else batch.ref).shape[0], highest]


def properties_of(batch: Batch) -> dict[str, Any]:
    """What must be the same on every rank besides the options."""
    tracked = torch.is_grad_enabled()
    return {
        "the number of columns of x": batch.x.shape[1],
        "the dtype of x": str(batch.x.dtype),
        "the device type of x": batch.x.device.type,
        "whether ref is given": batch.ref is not None,
        "whether self_index is given": batch.self_index is not None,
        "whether x requires a gradient": tracked and batch.x.requires_grad,
        "whether ref requires a gradient": tracked and batch.ref is not None and batch.ref.requires_grad,
    }


def check_self_index(sizes: list[list[int]], rows: int) -> None:
    for rank, (_, _, highest) in enumerate(sizes):
        if highest >= rows:
            raise IndexError(f"rank {rank}: self_index must lie in [-1, {rows}), got {highest}")


def transport(strategy: str, counts: Sequence[int], rows: Tensor) -> Blocks:
    """The same on every rank: it depends on nothing that ranks may disagree on."""
    small = sum(packed_bytes(count, rows) for count in counts) <= GATHER_BYTES
    return gathered if strategy == "gather" or (strategy == "auto" and small) else ring
