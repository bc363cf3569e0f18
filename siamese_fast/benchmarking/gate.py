"""The gate: an operation that fails its Case is never timed."""

from __future__ import annotations

from functools import cache

import torch

from siamese_fast.testing import CASES, Draw, Size, check

SIZES = (Size(67, 45, 33), Size(130, 97, 128))


@cache
def failure(case: str, variant: str, dtype: torch.dtype = torch.float32) -> str | None:
    """Why ours may not be timed: the first broken check of a Case at odd sizes; None when all hold."""
    for size in SIZES:
        for kind in ("normal", "relu"):
            try:
                check(CASES[case], variant, size, Draw(dtype, kind))
            except AssertionError as error:
                return f"{error}" or f"{case}[{variant}] failed"
    return None
