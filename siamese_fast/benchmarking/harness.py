"""Times several callables against each other in one process, interleaved, so that they meet the same machine.

After a warm-up every round runs the callables once each, in an order that rotates from round to round: a
clock that changes, a neighbour that wakes up or a cache that a predecessor left warm falls on all alike.
Results are medians with quartiles.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Call = Callable[[], object]
Clock = Callable[[], float]

_SHORTEST = 2e-3
"""Seconds that one sample lasts at least: faster calls are repeated within a sample."""

_LONG = 0.5
"""Times the whole plan: a call that takes longer is not warmed up twice and has fewer samples."""

_FEWEST_OF_SLOW = 2


@dataclass(frozen=True)
class Plan:
    """How long to measure.

    Attributes:
        seconds: for all callables together, warm-up left out.
        fewest, most: samples of each callable; the fewest are taken even when that takes longer.
    """

    seconds: float = 6.0
    fewest: int = 5
    most: int = 101


@dataclass(frozen=True)
class Timing:
    """Seconds a call: the median over samples, the quartiles around it, and what it rests on."""

    median: float
    low: float
    high: float
    samples: int
    calls: int

    @property
    def spread(self) -> float:
        """Distance of the quartiles as a share of the median."""
        return (self.high - self.low) / self.median

    def to_dict(self) -> dict[str, Any]:
        return {
            "median": self.median,
            "low": self.low,
            "high": self.high,
            "samples": self.samples,
            "calls": self.calls,
        }


def measure(
    calls: Mapping[str, Call], plan: Plan | None = None, clock: Clock = time.perf_counter
) -> dict[str, Timing]:
    """Time `calls` against each other.

    Args:
        calls: callables without arguments, by name; what they return is dropped.
        plan: how long; slow callables take part in fewer rounds, spread over the whole measurement.
        clock: seconds, for tests.

    Returns:
        A `Timing` for each name.

    Example:
        >>> times = measure({"ours": lambda: ours(x), "theirs": lambda: theirs(x)})
        >>> times["theirs"].median / times["ours"].median
    """
    plan = plan or Plan()
    warmed = {name: _warm_up(call, plan, clock) for name, call in calls.items()}
    repeats = {name: max(1, round(_SHORTEST / seconds)) for name, seconds in warmed.items()}
    rounds, strides = _schedule({name: warmed[name] * repeats[name] for name in calls}, plan)
    samples: dict[str, list[float]] = {name: [] for name in calls}
    collecting = gc.isenabled()
    gc.disable()
    try:
        for number in range(rounds):
            taking_part = [name for name in calls if number % strides[name] == 0]
            shift = number % max(1, len(taking_part))
            for name in taking_part[shift:] + taking_part[:shift]:
                samples[name].append(_sample(calls[name], repeats[name], clock))
    finally:
        if collecting:
            gc.enable()
    return {name: summary(samples[name], repeats[name]) for name in calls}


def summary(samples: list[float], calls: int = 1) -> Timing:
    """Median and quartiles of samples in seconds a call."""
    if len(samples) == 1:
        return Timing(samples[0], samples[0], samples[0], 1, calls)
    low, median, high = statistics.quantiles(samples, n=4, method="inclusive")
    return Timing(median, low, high, len(samples), calls)


def _warm_up(call: Call, plan: Plan, clock: Clock) -> float:
    """Seconds of a call once it is warm; the first call compiles, fills caches and loads libraries."""
    cold = _sample(call, 1, clock)
    return cold if cold > _LONG * plan.seconds else max(_sample(call, 1, clock), 1e-9)


def _sample(call: Call, repeats: int, clock: Clock) -> float:
    start = clock()
    for _ in range(repeats):
        call()
    return (clock() - start) / repeats


def _schedule(seconds: Mapping[str, float], plan: Plan) -> tuple[int, dict[str, int]]:
    """The number of rounds, and in every how many each callable takes part: all get about the same time."""
    share = plan.seconds / max(1, len(seconds))
    wanted = {}
    for name, each in seconds.items():
        fewest = min(plan.fewest, _FEWEST_OF_SLOW) if each > _LONG * plan.seconds else plan.fewest
        wanted[name] = min(plan.most, max(fewest, int(share / each)))
    rounds = max(wanted.values(), default=0)
    return rounds, {name: rounds // count for name, count in wanted.items()}
