"""The loops of `forms.py` that numba compiles; imported only where numba is installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from siamese_fast._extras import require

_numba: Any = require("numba", extra="bench")
_jit: Callable[[Callable[..., Any]], Callable[..., Any]] = _numba.njit(
    parallel=True, fastmath={"reassoc", "contract", "nsz", "arcp"}, cache=False
)


@_jit
def extremes(
    scores: np.ndarray, labels: np.ndarray, start: int, positive: np.ndarray, negative: np.ndarray
) -> None:
    """Of each row of scores x.y - |y|^2 / 2: the lowest of its class, the highest of another."""
    rows, columns = scores.shape
    for row in _numba.prange(rows):
        own = labels[start + row]
        low, high = np.float32(np.inf), np.float32(-np.inf)
        low_at, high_at = 0, 0
        for column in range(columns):
            score = scores[row, column]
            if labels[column] == own:
                if score < low:
                    low, low_at = score, column
            elif score > high:
                high, high_at = score, column
        positive[start + row], negative[start + row] = low_at, high_at


@_jit
def koch_forward(q: np.ndarray, s: np.ndarray, weight: np.ndarray, bias: float) -> np.ndarray:
    """Logits [Q, S]."""
    logits = np.empty((q.shape[0], s.shape[0]), dtype=np.float32)
    for i in _numba.prange(q.shape[0]):
        for j in range(s.shape[0]):
            total = np.float32(0)
            for k in range(q.shape[1]):
                total += weight[k] * abs(q[i, k] - s[j, k])
            logits[i, j] = total + np.float32(bias)
    return logits


@_jit
def koch_backward(
    grad: np.ndarray, q: np.ndarray, s: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of q, s and the weight; the weight's from the sums of signs, O((Q + S) D)."""
    of_q, of_s = np.zeros_like(q), np.zeros_like(s)
    for i in _numba.prange(q.shape[0]):
        for j in range(s.shape[0]):
            for k in range(q.shape[1]):
                of_q[i, k] += grad[i, j] * np.sign(q[i, k] - s[j, k])
    for j in _numba.prange(s.shape[0]):
        for i in range(q.shape[0]):
            for k in range(q.shape[1]):
                of_s[j, k] -= grad[i, j] * np.sign(q[i, k] - s[j, k])
    of_weight = (of_q * q).sum(0) + (of_s * s).sum(0)
    return of_q * weight, of_s * weight, of_weight
