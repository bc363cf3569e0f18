"""What the machine can do at most, measured in the run whose results are held against it.

    fma         fused multiply-adds, 2 flops each
    abs         elements of the exact Koch sum: sub, and, fma
    max         elements of the Koch sum by maxima: max, fma
    sign        elements of the gradients of all pairs: sub, sign, fma, fma
    read        bytes read from an array
    copy        bytes read and written, from one array to another
    product     the fastest fp32 matrix product of torch and of numpy: how near a well-kept BLAS comes to fma

The instruction mixes run from L1 on the threads of the run, in the instruction set of the kernels, see
csrc/cpu/limits.inl. An array that fits a cache is read faster than memory, so bandwidths belong to the size
of what is passed over: they are measured on the largest of `SPANS` that is not larger. Every limit is the
best of several samples, forms and occasions: interference slows a probe, and a limit must not be too low.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from siamese_fast import backend

MIXES = {"fma": 0, "abs": 1, "max": 2, "sign": 3}
BANDWIDTHS = ("read", "copy")
SPANS = tuple(mebibytes * 2**20 for mebibytes in (16, 32, 64, 128, 256, 1024))
_READ, _COPY, _COPY_PAST_CACHES = 4, 5, 6
_STREAMS = (1, 2, 4, 8)
_STEPS = 100_000
"""Of a mix in a call: half a millisecond, beside which the call itself is nothing."""
_SIZES = ((512, 512, 512), (1024, 1024, 512), (1536, 1536, 256))


@dataclass(frozen=True)
class Limit:
    """A rate that this machine reached: flops, elements or bytes a second, and how it was measured."""

    rate: float
    unit: str
    probe: str

    def to_dict(self) -> dict[str, object]:
        return {"rate": self.rate, "unit": self.unit, "probe": self.probe}


class Limits:
    """The limits of one run at one number of threads.

    A limit is measured anew before and after every row that is held against it, and the best so far counts:
    the clock of a machine changes within minutes.

    Attributes:
        found: every limit so far by its name, that of a bandwidth with its array.
        seconds: for each measurement.
    """

    def __init__(self, seconds: float = 0.2) -> None:
        self.seconds = seconds
        self.found: dict[str, Limit] = {}

    def of(self, name: str, amount: float = 0) -> Limit | None:
        """A limit of the machine; None without the C++ extension, whose loops are the probes.

        Args:
            name: one of the module's.
            amount: for a bandwidth, the bytes of the arrays that are passed over.
        """
        if backend.instruction_set() is None and name != "product":
            return None
        span = max((span for span in SPANS if span <= amount), default=SPANS[0])
        if name in MIXES:
            label, limit = name, _mix(name, self.seconds)
        elif name in BANDWIDTHS:
            label, limit = f"{name} {span >> 20} MiB", _bandwidth(name, span, self.seconds)
        elif name == "product":
            label, limit = name, _product(self.seconds)
        else:
            raise ValueError(
                f"limit must be one of {', '.join((*MIXES, *BANDWIDTHS))} or product, got {name!r}"
            )
        before = self.found.get(label)
        if before is None or before.rate < limit.rate:
            self.found[label] = limit
        return self.found[label]

    def to_dict(self) -> dict[str, dict[str, object]]:
        return {name: limit.to_dict() for name, limit in self.found.items()}


def _mix(name: str, seconds: float) -> Limit:
    native: Any = importlib.import_module("siamese_fast._native")
    threads = torch.get_num_threads()
    elements = threads * _STEPS * native.probe_elements(MIXES[name])
    best = _best(lambda: native.probe(MIXES[name], threads, _STEPS, 1, 0, 0), seconds)
    flops = name == "fma"
    probe = f"{backend.instruction_set()} loop over L1"
    return Limit((2 if flops else 1) * elements / best, "flop/s" if flops else "element/s", probe)


def _bandwidth(name: str, array_bytes: int, seconds: float) -> Limit:
    native: Any = importlib.import_module("siamese_fast._native")
    threads = torch.get_num_threads()
    both = name == "copy"
    count = array_bytes // (8 if both else 4)
    source, target = _aligned(count), _aligned(count if both else 16)
    kinds = {"": _COPY, ", past the caches": _COPY_PAST_CACHES} if both else {"": _READ}
    found = []
    for words, kind in kinds.items():
        for streams in _STREAMS:

            def probe(kind: int = kind, streams: int = streams) -> None:
                native.probe(kind, threads, count, streams, source.data_ptr(), target.data_ptr())

            best = _best(probe, seconds / (len(kinds) * len(_STREAMS)))
            label = f"{array_bytes >> 20} MiB in {streams} stream{'s'[: streams > 1]}{words}"
            found.append(Limit(array_bytes / best, "byte/s", label))
    return max(found, key=lambda limit: limit.rate)


def _aligned(count: int) -> torch.Tensor:
    """`count` float32 ones that begin at a cache line."""
    ones = torch.ones(count + 16)
    return ones[-(ones.data_ptr() // 4) % 16 :][:count]


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


def _best(call: Callable[[], object], seconds: float) -> float:
    call()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end or best == float("inf"):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best
