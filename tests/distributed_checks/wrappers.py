"""The distributed wrappers of pytorch-metric-learning around the drop-in and around the library's own."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from compat_checks import LOSSES, MINERS, rows, same
from pytorch_metric_learning import losses as theirs
from pytorch_metric_learning import miners
from pytorch_metric_learning.utils.distributed import DistributedLossWrapper, DistributedMinerWrapper

from siamese_fast.compat import pytorch_metric_learning as ours
from siamese_fast.distributed.world import World

LABELS = torch.arange(18) % 5


def check_losses(world: World) -> None:
    for name, efficient in itertools.product(LOSSES, (False, True)):
        mine, library = (
            DistributedLossWrapper(getattr(module, name)(), efficient=efficient) for module in (ours, theirs)
        )
        same(mine, library, rows(18, world.rank), LABELS + world.rank)


def check_miners(world: World) -> None:
    for name, efficient in itertools.product(MINERS, (False, True)):
        x = rows(18, world.rank)
        found, expected = (
            DistributedMinerWrapper(getattr(module, name)(), efficient=efficient)(x, LABELS)
            for module in (ours, miners)
        )
        assert all(torch.equal(got, want) for got, want in zip(found, expected, strict=True))


def check_memories(world: World) -> None:
    def wrapped(module: Any, name: str) -> DistributedLossWrapper:
        memory = module.CrossBatchMemory(getattr(module, name)(), embedding_size=5, memory_size=80)
        return DistributedLossWrapper(memory)

    for name in LOSSES:
        mine, library = wrapped(ours, name), wrapped(theirs, name)
        for step in range(4):
            same(mine, library, rows(18, 10 * step + world.rank), LABELS)
