"""Rows that were fetched from other ranks, and their gradients on the way home.

    table[u] = row ids[u] of all ranks' rows, one after the other
    gradient of row i = sum over ranks and u with ids[u] = i of the gradient of table[u]

A rank's table holds each row once, so it sends at most one gradient for each row it used: at most 2 N D
numbers a loss. Ranks talk in rounds, in round t to the rank t places on: one message in memory at a time, and
additions in an order that does not change between runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from siamese_fast.distributed.blocks import pack, packed_bytes, unpack
from siamese_fast.distributed.world import World


class Fetched(torch.autograd.Function):
    """`Fetched.apply(rows, table, ids, counts, world)` is `table`, with gradients for every rank's `rows`."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, table: Tensor, ids: Tensor, counts: Sequence[int], world: World
    ) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.counts, ctx.world = counts, world
        return table.view_as(table)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None, None]:
        return sent_home(ctx.world, ctx.saved_tensors[0], grad, ctx.counts), None, None, None, None


def sent_home(world: World, ids: Tensor, values: Tensor, counts: Sequence[int]) -> Tensor:
    """The sum over ranks of the values `[U, D]` that they have for this rank's rows, `[counts[rank], D]`.

    `ids` `[U]` ascend and do not repeat: rows of the concatenation of blocks of `counts` rows.
    """
    starts = [0, *accumulate(counts)]
    cuts = torch.searchsorted(ids, torch.tensor(starts, device=ids.device))
    lengths = cuts.diff()
    expected = world.swap(lengths).tolist()
    bounds, sending = cuts.tolist(), lengths.tolist()

    def message(owner: int) -> Tensor:
        part = slice(bounds[owner], bounds[owner + 1])
        return pack(ids[part] - starts[owner], values[part])

    total = values.new_zeros(counts[world.rank], values.shape[1])
    arrived, source = message(world.rank), world.rank
    for step in range(1, world.size + 1):
        coming, to = (world.rank - step) % world.size, (world.rank + step) % world.size
        last = step == world.size
        following = arrived.new_empty(0 if last else packed_bytes(expected[coming], values))
        # Both ends know that an empty message is not sent.
        leaving = message(to) if not last and sending[to] else following[:0]
        works = [] if last else world.start(leaving, to, following, coming)
        index, part = unpack(arrived, expected[source], values)
        total[index] = total[index] + part
        for work in works:
            work.wait()
        arrived, source = following, coming
    return total


def carried_home(world: World, parts: Iterable[tuple[int, Tensor]], counts: Sequence[int]) -> Tensor:
    """The sum over ranks of what they have for this rank's rows, `[counts[rank], D]`, where each has a part
    (owner, `[counts[owner], D]`) for the rows of every rank, in the order in which blocks visit it.

    A part follows its block: what the rank before found is added, and the sum handed on to the next; from the
    last rank that a block visits the next is its home.
    """
    works: list[Any] = []
    total = leaving = arrived = torch.empty(0)
    for step, (owner, part) in enumerate(parts):
        if step == 0:
            total = arrived = part
            continue
        for work in works:
            work.wait()
        leaving = part if step == 1 else arrived + part
        arrived = part.new_empty(counts[(owner - 1) % world.size], part.shape[1])
        works = world.start(leaving, (world.rank + 1) % world.size, arrived, (world.rank - 1) % world.size)
    for work in works:
        work.wait()
    return total + arrived if world.size > 1 else total
