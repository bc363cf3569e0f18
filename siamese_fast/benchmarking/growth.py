"""Cost as work grows: the batch-hard loss and its gradient at N from 256 to 65536, ours and every peer's.

Each point is a process of its own under a cap of memory and of time, so that a contender that wants more ends
there and nothing else is harmed. Exponents are slopes of log time and log memory over log N, fitted to the
last `FITTED` sizes that a contender survived: small sizes show the overhead of a call.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from siamese_fast.benchmarking.contender import Contender
from siamese_fast.benchmarking.isolated import NotSpent, Spent, row_task, spend
from siamese_fast.benchmarking.machine import describe, memory_bytes, version_of
from siamese_fast.benchmarking.rows import named

SIZES = (256, 1024, 4096, 16384, 65536)
FITTED = 3
ROW = "batch-hard N=256"
_FREE = 0.7
_CAP = 8 * 10**9


@dataclass(frozen=True)
class Budget:
    """What a study may take.

    Attributes:
        process_seconds: for one process, its start included.
        seconds: in all, small sizes of everybody first; what is left then is not measured.
        cap: bytes that one process may hold; None for 8 GB, or 70 % of the free memory if that is less.
    """

    process_seconds: float = 60.0
    seconds: float = 420.0
    cap: int | None = None

    def bytes(self) -> int:
        if self.cap is not None:
            return self.cap
        free = memory_bytes()
        return _CAP if free is None else min(_CAP, int(_FREE * free))


Spend = Callable[[dict[str, Any], int | None, float], Spent]
Tell = Callable[[str, int, int], None]


def study(
    budget: Budget,
    threads: int = 1,
    sizes: Sequence[int] = SIZES,
    tell: Tell = lambda text, done, total: None,
    spend: Spend = spend,
) -> dict[str, Any]:
    """The study as JSON types: for each contender its points, exponents, the largest N and what ended it."""
    work = named(ROW)
    end = time.monotonic() + budget.seconds
    cap = budget.bytes()
    found = [_entry(contender) for contender in work.contenders]
    turns = [(n, pair) for n in sizes for pair in zip(work.contenders, found, strict=True)]
    for number, (n, (contender, entry)) in enumerate(turns):
        if entry["ended"] is not None:
            continue
        tell(f"{contender.name}, N={n}", number, len(turns))
        task = {**row_task(work, contender, threads), "size": {**work.size, "N": n}}
        left = min(budget.process_seconds, end - time.monotonic())
        try:
            if left <= 0:
                raise NotSpent("time", "the study's time was over")
            spent = spend(task, cap, left)
        except NotSpent as error:
            entry["ended"] = f"{error.cause}: {error}"
        else:
            entry["points"].append({"N": n, "seconds": spent.seconds, "bytes": spent.bytes})
    for entry in found:
        entry.update(_fitted(entry["points"]))
    return {
        "study": "growth",
        **describe(threads),
        "operation": work.operation,
        "size": {name: value for name, value in work.size.items() if name != "N"},
        "sizes": list(sizes),
        "cap_bytes": cap,
        "cap_seconds": budget.process_seconds,
        "contenders": found,
    }


def _entry(contender: Contender) -> dict[str, Any]:
    missing = [library for library in contender.libraries if version_of(library) is None]
    ended = f"missing: {', '.join(missing)} is not installed" if missing else None
    return {"name": contender.name, "column": contender.column, "points": [], "ended": ended}


def _fitted(points: Sequence[dict[str, float]]) -> dict[str, Any]:
    return {
        "largest": points[-1]["N"] if points else None,
        "time_exponent": exponent([(one["N"], one["seconds"]) for one in points]),
        "memory_exponent": exponent([(one["N"], one["bytes"]) for one in points]),
    }


def exponent(points: Sequence[tuple[float, float]]) -> float | None:
    """The slope of log y over log x by least squares, over the last `FITTED` points; None for fewer."""
    if len(points) < FITTED or any(y <= 0 for _, y in points[-FITTED:]):
        return None
    logs = [(math.log(x), math.log(y)) for x, y in points[-FITTED:]]
    x_mean, y_mean = (sum(values) / FITTED for values in zip(*logs, strict=True))
    above: float = sum((x - x_mean) * (y - y_mean) for x, y in logs)
    slope: float = above / sum((x - x_mean) ** 2 for x, _ in logs)
    return slope
