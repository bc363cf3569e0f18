"""What the fused operations take, asked by every drop-in before it answers in place of the library."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from siamese_fast.ops._checks import DTYPES
from siamese_fast.ops.pair_loss import FLOAT32_MAX

PAIRWISE_EPS = 1e-6  # what torch's pairwise distance adds to every difference by default


def is_number(value: Any) -> bool:
    """A plain number that a kernel takes; tensors may be learnt, which only the library's code does."""
    plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    return plain and math.isfinite(value) and abs(value) <= FLOAT32_MAX


def is_rows(value: Any) -> bool:
    """A matrix [N, D] of a floating dtype, D >= 1."""
    return isinstance(value, Tensor) and value.dim() == 2 and value.shape[1] > 0 and value.dtype in DTYPES


def is_labels(value: Any) -> bool:
    """A tensor of integers or bools."""
    return isinstance(value, Tensor) and not value.is_floating_point() and not value.is_complex()


def alike(*rows: Any) -> bool:
    """Rows [..., D] of one shape, floating dtype and device, at least one."""
    first = rows[0]
    return all(
        isinstance(row, Tensor)
        and row.dim() > 0
        and row.numel() > 0
        and row.dtype in DTYPES
        and row.shape == first.shape
        and row.dtype == first.dtype
        and row.device == first.device
        for row in rows
    )
