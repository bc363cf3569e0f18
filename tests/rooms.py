"""The axes of the operation suite: who serves an operation, which case of it, which dtype, which sizes."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from _pytest.mark.structures import ParameterSet

from siamese_fast import backend
from siamese_fast.testing import CASES, Size

NATIVE_ROOMS = backend.instruction_sets()
ROOMS = ("reference", *NATIVE_ROOMS)
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)

# Rows, other rows, columns: tails of every vector width, tile edges, chunk edges (256 rows, 256 columns).
WORKLOADS = (
    (Size(0, 5, 3), "normal"),
    (Size(5, 0, 3), "normal"),
    (Size(1, 1, 1), "normal"),
    (Size(1, 2, 16), "relu"),
    (Size(3, 2, 1), "integers"),
    (Size(2, 3, 15), "normal"),
    (Size(7, 5, 17), "relu"),
    (Size(16, 16, 16), "integers"),
    (Size(33, 31, 31), "tight"),
    (Size(17, 64, 33), "normal"),
    (Size(65, 17, 127), "integers"),
    (Size(130, 67, 128), "normal"),
    (Size(40, 41, 255), "relu"),
    (Size(64, 48, 256), "tight"),
    (Size(19, 70, 257), "normal"),
    (Size(37, 29, 300), "integers"),
    (Size(12, 9, 1000), "normal"),
    (Size(300, 280, 3), "relu"),
    (Size(7, 6, 4096), "normal"),
)


@contextmanager
def serving(room: str) -> Iterator[None]:
    """Serve every operation by the reference, or by the native kernels of one instruction set."""
    if room == "reference":
        with backend.use("reference"):
            yield
    else:
        with backend.use("native"), backend.use_instruction_set(room):
            yield


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def variants(*, differentiable: bool = False, first_only: bool = False) -> list[ParameterSet]:
    """Every case and variant, as parameters `case, variant`."""
    return [
        pytest.param(case, variant, id=f"{case.name}[{variant}]")
        for case in CASES.values()
        if case.differentiable or not differentiable
        for variant in list(case.variants)[: 1 if first_only else None]
    ]


def split(key: str, share: int) -> tuple[list[int], list[int]]:
    """Workloads of the short tier, one in `share`, a different choice for every key; and all the others."""
    start = zlib.crc32(key.encode()) % share
    short = list(range(start, len(WORKLOADS), share))
    return short, [number for number in range(len(WORKLOADS)) if number not in short]
