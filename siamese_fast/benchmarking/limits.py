"""What the machine can do at most, measured in the run whose results are held against it.

    product     the fastest fp32 matrix product of torch and of numpy over a few sizes: a stand-in for the
                peak of the fused multiply-add units, and below it (a well-kept BLAS reaches 90 to 97 % of it)
    read        the fastest of a sum, a maximum and a dot product over arrays far larger than the caches
    copy        a copy between two such arrays, bytes read plus bytes written

Every limit is the best of several samples: interference only ever slows a probe down.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

_SIZES = ((512, 512, 512), (1024, 1024, 512), (1536, 1536, 256))
_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Limit:
    """A rate that this machine reached: operations or bytes a second, and how it was measured."""

    rate: float
    unit: str
    probe: str

    def to_dict(self) -> dict[str, object]:
        return {"rate": self.rate, "unit": self.unit, "probe": self.probe}


def measure_limits(seconds: float = 0.5, array_bytes: int = _BYTES) -> dict[str, Limit]:
    """All limits at the current number of threads, `seconds` for each probe."""
    return {
        "product": _product(seconds),
        "read": _read(seconds, array_bytes),
        "copy": _copy(seconds, array_bytes),
    }


def _product(seconds: float) -> Limit:
    found = []
    for rows, columns, depth in _SIZES:
        x, y, out = torch.randn(rows, depth), torch.randn(depth, columns), torch.empty(rows, columns)
        a, b, c = x.numpy(), y.numpy(), out.numpy()
        flops = 2 * rows * columns * depth
        for library, call in _products(x, y, out, a, b, c):
            best = _best(call, seconds / (2 * len(_SIZES)))
            found.append(Limit(flops / best, "flop/s", f"{library} sgemm {rows}x{columns}x{depth}"))
    return max(found, key=lambda limit: limit.rate)


def _products(
    x: torch.Tensor, y: torch.Tensor, out: torch.Tensor, a: np.ndarray, b: np.ndarray, c: np.ndarray
) -> list[tuple[str, Callable[[], object]]]:
    return [("torch", lambda: torch.mm(x, y, out=out)), ("numpy", lambda: np.dot(a, b, out=c))]


def _read(seconds: float, array_bytes: int) -> Limit:
    x = torch.ones(array_bytes // 4)
    half = x.numel() // 2
    left, right = x[:half], x[half : 2 * half]
    probes: dict[str, Callable[[], object]] = {
        "sum": x.sum,
        "max": x.amax,
        "dot": lambda: torch.dot(left, right),
    }
    rates = {name: array_bytes / _best(call, seconds / len(probes)) for name, call in probes.items()}
    best = max(rates, key=rates.__getitem__)
    return Limit(rates[best], "byte/s", f"torch {best} over {array_bytes >> 20} MiB")


def _copy(seconds: float, array_bytes: int) -> Limit:
    source, target = torch.ones(array_bytes // 8), torch.empty(array_bytes // 8)
    best = _best(lambda: target.copy_(source), seconds)
    return Limit(array_bytes / best, "byte/s", f"torch copy, {array_bytes >> 21} MiB to as many")


def _best(call: Callable[[], object], seconds: float) -> float:
    call()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end or best == float("inf"):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best
