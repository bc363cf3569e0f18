"""A support set in shards: which rank holds which examples, and how they move.

Every example has a position, its place in the order added. A rank may hold any of them, in ascending order;
the numbers of examples on any two ranks differ by at most one.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from siamese_fast.distributed.world import World


class Shard(NamedTuple):
    """What one rank holds: embeddings `[s, D]`, class numbers int64 `[s]`, ascending positions `[s]`."""

    embeddings: Tensor
    class_index: Tensor
    position: Tensor

    def select(self, keep: Tensor) -> Shard:
        return Shard(self.embeddings[keep], self.class_index[keep], self.position[keep])

    def joined(self, other: Shard) -> Shard:
        """Both, in the order of their positions."""
        both = [torch.cat(pair) for pair in zip(self, other, strict=True)]
        return Shard(*both).select(both[2].argsort())


def balanced(world: World, shard: Shard) -> Shard:
    """The shard once ranks with too many examples gave their last ones to ranks with too few."""
    sizes = world.gather(torch.tensor(len(shard.position), device=world.device)).tolist()
    given, taken = 0, []
    for source, to, count in moves(sizes):
        if source == world.rank:
            end = sizes[source] - given
            _send(world, [part[end - count : end] for part in shard], to)
            given += count
        elif to == world.rank:
            taken.append(_receive(world, shard, count, source))
    kept = shard.select(torch.arange(sizes[world.rank] - given, device=shard.position.device))
    for more in taken:
        kept = kept.joined(more)
    return kept


def moves(sizes: list[int]) -> list[tuple[int, int, int]]:
    """(from, to, how many) that make `sizes` differ by at most one, with as few examples moved as can be."""
    base, extra = divmod(sum(sizes), len(sizes))
    largest_first = sorted(range(len(sizes)), key=lambda rank: (-sizes[rank], rank))
    excess = [size - base for size in sizes]
    for rank in largest_first[:extra]:
        excess[rank] -= 1
    plan = []
    for source in range(len(sizes)):
        for to in range(len(sizes)):
            count = min(excess[source], -excess[to])
            if count > 0:
                plan.append((source, to, count))
                excess[source] -= count
                excess[to] += count
    return plan


def _send(world: World, parts: list[Tensor], to: int) -> None:
    for part in parts:
        nothing = part.new_empty(0)
        for work in world.start(part.contiguous(), to, nothing, to):
            work.wait()


def _receive(world: World, like: Shard, count: int, source: int) -> Shard:
    parts = []
    for part in like:
        received = part.new_empty((count, *part.shape[1:]))
        for work in world.start(part[:0], source, received, source):
            work.wait()
        parts.append(received)
    return Shard(*parts)
