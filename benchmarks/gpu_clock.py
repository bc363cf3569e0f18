"""Times calls on one device: CUDA events, the L2 cache overwritten before every run, median, memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

Call = Callable[[], Any]


class Clock:
    """Times calls on one device; the L2 cache is overwritten before each. `runs=1` makes each call once."""

    def __init__(self, device: str, runs: int = 15) -> None:
        self.device, self.runs, self.cuda = device, runs, device == "cuda"
        self.flush = torch.empty(1 << (28 if self.cuda else 10), dtype=torch.uint8, device=device)

    def once(self, call: Call) -> float:
        self.flush.random_()
        if not self.cuda:
            start = time.perf_counter()
            call()
            return time.perf_counter() - start
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        call()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3

    def measure(self, call: Call) -> dict[str, float]:
        if self.runs > 1:
            call()
        first = self.once(call)
        runs = max(min(3, self.runs), min(self.runs, int(2.0 / max(first, 1e-6))))
        found = sorted([first] if runs == 1 else (self.once(call) for _ in range(runs)))
        memory = {}
        if self.cuda:
            torch.cuda.synchronize()
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            call()
            torch.cuda.synchronize()
            memory = {"extra_bytes": float(torch.cuda.max_memory_allocated() - before)}
        return {
            "seconds": statistics.median(found),
            "fastest": found[0],
            "slowest": found[-1],
            "runs": runs,
            **memory,
        }
