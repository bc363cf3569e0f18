"""What a row of the benchmark is: what is computed, at which size, by whom, what it costs, what we aim at."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch

from siamese_fast.benchmarking.contender import Contender, Inputs, Sizes, Stage


@dataclass(frozen=True)
class Cost:
    """What a row costs at least.

    Attributes:
        amount, unit: what the rate is stated in.
        counted: how the amount is counted, in words.
        against: what is held against each limit of `limits`, in its unit: bytes are those of arrays that are
            passed over once. The least time is the sum of the times that these take at the limits. Empty
            where no limit applies.
    """

    amount: float
    unit: Literal["flop", "byte", "element"]
    counted: str
    against: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Aims:
    """What a row is to reach.

    Attributes:
        ratios: time over ours, of "best peer" (the fastest of all others), of the best of a column
            ("published", "constructed") or of one contender.
        share: of the machine's limit.
        memory: peak bytes beyond the inputs.
        threads: time on one thread over ours, a thread, where the run has more than one.
    """

    ratios: Mapping[str, float] = field(default_factory=dict)
    share: float | None = None
    memory: int | None = None
    threads: float | None = None


@dataclass(frozen=True)
class Work:
    """One row.

    Attributes:
        name: unique; `--only` matches any part of it.
        operation: rows of one operation share a plot and a name of their own in tables.
        size: named sizes, N, Q, S, B, T, C, D, k.
        draw: seeded inputs of a size.
        leaves: inputs that take gradients in a row with a backward stage.
        gate: (Case, variant) that must pass, in `dtype`, before ours is timed.
        contenders: ours first.
        full: only in the full set. memory: peak memory is measured too. main: in the README's table.
    """

    name: str
    operation: str
    stage: Stage
    size: Sizes
    draw: Callable[[Sizes], Inputs]
    gate: tuple[tuple[str, str], ...]
    contenders: tuple[Contender, ...]
    cost: Cost
    leaves: tuple[str, ...] = ()
    aims: Aims = field(default_factory=Aims)
    dtype: torch.dtype = torch.float32
    full: bool = False
    memory: bool = False
    main: bool = False

    @property
    def slug(self) -> str:
        """The name without spaces and signs, for the identifiers of pytest."""
        return re.sub(r"[^\w.]+", "-", self.name.replace("=", "")).strip("-")

    def inputs(self) -> Inputs:
        """Fresh inputs, with `requires_grad` where the stage needs it."""
        drawn = self.draw(self.size)
        if self.stage != "forward":
            for name in self.leaves:
                drawn[name].requires_grad_()
        return drawn
