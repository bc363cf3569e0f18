"""The rows of the benchmark, a file for each family of operations.

A new row is one `Work` in its file; a new peer is one adapter in `peers.py` (or a form in `forms/`) and its
name in the rows it applies to.
"""

from __future__ import annotations

from siamese_fast.benchmarking.rows import koch, lookup, losses, pairs, triplets
from siamese_fast.benchmarking.work import Work

WORK: tuple[Work, ...] = (*triplets.ROWS, *losses.ROWS, *koch.ROWS, *pairs.ROWS, *lookup.ROWS)


def select(only: str | None = None, *, full: bool = False) -> list[Work]:
    """Rows of the small or the full set, or every row whose name contains `only`."""
    if only is not None:
        return [work for work in WORK if only.casefold() in work.name.casefold()]
    return [work for work in WORK if full or not work.full]


def named(name: str) -> Work:
    """The row of that name."""
    return next(work for work in WORK if work.name == name)
