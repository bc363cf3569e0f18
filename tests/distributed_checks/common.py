"""What the checks share: how rows are dealt out to ranks, and errors that every rank must raise."""

from __future__ import annotations

import re
from collections.abc import Callable

from siamese_fast.distributed.world import World


def split(world: World, rows: int, kind: str) -> list[int]:
    """How many of the rows each rank holds: "equal", "unequal", one rank "empty", all on the "last"."""
    if kind == "equal":
        return [rows // world.size] * world.size
    if kind == "unequal":
        weights = [rank + 1 for rank in range(world.size)]
        return [rows * weight // sum(weights) for weight in weights]
    if kind == "last":
        return [0] * (world.size - 1) + [rows]
    counts = [rows // (world.size - 1)] * world.size
    counts[world.size // 2] = 0
    return counts


def own(world: World, counts: list[int]) -> slice:
    start = sum(counts[: world.rank])
    return slice(start, start + counts[world.rank])


def raises(kind: type[Exception], pattern: str, call: Callable[[], object]) -> None:
    try:
        call()
    except kind as error:
        if not re.search(pattern, str(error)):
            raise AssertionError(f"{pattern!r} is not in {str(error)!r}") from error
    else:
        raise AssertionError(f"no {kind.__name__}")
