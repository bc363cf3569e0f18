"""Blocks of rows with one number each, as they travel: every rank's block visits every other rank.

    ring     W - 1 rounds: send to the next rank the block that is being looked at, receive the one after it
             meanwhile; two blocks in memory
    gather   one all_gather of blocks padded to the longest; all blocks in memory

Both yield the same blocks in the same order, this rank's own first. A block is one message: its numbers, then
its rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from siamese_fast.distributed.world import World

_ALIGNMENT = 64


def pack(numbers: Tensor, rows: Tensor) -> Tensor:
    """int64 `[N]` and rows `[N, D]` as bytes."""
    packed = rows.new_empty(packed_bytes(rows.shape[0], rows), dtype=torch.uint8)
    for part, value in zip(unpack(packed, rows.shape[0], rows), (numbers, rows), strict=True):
        part.copy_(value)
    return packed


def unpack(packed: Tensor, count: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers and rows of a packed block of `count` rows, without copying."""
    columns = like.shape[1]
    if count == 0:
        return packed.new_empty(0, dtype=torch.int64), like.new_empty(0, columns)
    start = _aligned(8 * count)
    rows = packed[start : start + count * columns * like.element_size()].view(like.dtype)
    return packed[: 8 * count].view(torch.int64), rows.view(count, columns)


def packed_bytes(count: int, like: Tensor) -> int:
    return _aligned(8 * count) + _aligned(count * like.shape[1] * like.element_size())


def _aligned(length: int) -> int:
    return -(-length // _ALIGNMENT) * _ALIGNMENT


def ring(
    world: World, numbers: Tensor, rows: Tensor, counts: Sequence[int]
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield (rank, numbers, rows) of every rank's block; `counts` are their lengths.

    What is yielded is valid until the next block is asked for.
    """
    block = pack(numbers, rows)
    for step in range(world.size):
        owner, coming = (world.rank - step) % world.size, (world.rank - step - 1) % world.size
        last = step == world.size - 1
        following = block.new_empty(0 if last else packed_bytes(counts[coming], rows))
        works = [] if last else world.start(block, _next(world), following, _before(world))
        yield owner, *unpack(block, counts[owner], rows)
        for work in works:
            work.wait()
        block = following


def gathered(
    world: World, numbers: Tensor, rows: Tensor, counts: Sequence[int]
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """As `ring`, by one all_gather."""
    padded = rows.new_zeros(packed_bytes(max(counts), rows), dtype=torch.uint8)
    own = pack(numbers, rows)
    padded[: len(own)] = own
    blocks = world.gather(padded)
    for step in range(world.size):
        owner = (world.rank - step) % world.size
        yield owner, *unpack(blocks[owner], counts[owner], rows)


def _next(world: World) -> int:
    return (world.rank + 1) % world.size


def _before(world: World) -> int:
    return (world.rank - 1) % world.size
