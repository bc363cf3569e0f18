"""C++ kernels of look-up: `siamese_fast.ops.support`, `nearest_support` and `class_scores`."""

from __future__ import annotations

import torch
from torch import Tensor

from siamese_fast.native._call import (
    DTYPE,
    METRIC,
    address,
    compute_dtype,
    extension,
    fresh,
    operand,
    threads,
)


def pack_support(rows: Tensor, metric: str) -> Tensor:
    rows, code, form = rows.contiguous(), DTYPE[rows.dtype], METRIC[metric]
    packed = fresh((extension.packed_bytes(code, form, *rows.shape),), torch.uint8)
    extension.pack_support(code, threads(), form, *rows.shape, rows.data_ptr(), packed.data_ptr())
    return packed


def _operands(
    q: Tensor, s: Tensor, weight: Tensor | None, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    compute, depth = compute_dtype(q.dtype), q.shape[1]
    s = operand("s", s, q.dtype, (s.shape[0], depth))
    weight = None if weight is None else operand("weight", weight, compute, (depth,))
    bias = None if bias is None else operand("bias", bias, compute, ())
    return q.contiguous(), s, weight, bias


def _packed_address(packed: Tensor, s: Tensor, metric: str) -> int:
    """Where the packed supports lie; 0, so that the kernel packs on the way, unless they are whole."""
    size = extension.packed_bytes(DTYPE[s.dtype], METRIC[metric], *s.shape)
    whole = (
        packed.dtype == torch.uint8 and packed.is_cpu and packed.is_contiguous() and packed.numel() == size
    )
    return packed.data_ptr() if whole else 0


def nearest_support(
    q: Tensor, s: Tensor, k: int, metric: str, weight: Tensor | None, bias: Tensor | None, packed: Tensor
) -> tuple[Tensor, Tensor]:
    q, s, weight, bias = _operands(q, s, weight, bias)
    scores = q.new_empty(q.shape[0], k, dtype=compute_dtype(q.dtype))
    indices = torch.empty(q.shape[0], k, dtype=torch.int64)
    extension.nearest_support(
        DTYPE[q.dtype],
        threads(),
        METRIC[metric],
        q.shape[0],
        s.shape[0],
        q.shape[1],
        k,
        q.data_ptr(),
        s.data_ptr(),
        _packed_address(packed, s, metric),
        address(weight),
        address(bias),
        scores.data_ptr(),
        indices.data_ptr(),
    )
    return scores, indices


def class_scores(
    q: Tensor,
    s: Tensor,
    class_index: Tensor,
    num_classes: int,
    metric: str,
    weight: Tensor | None,
    bias: Tensor | None,
    reduce: str,
) -> Tensor:
    q, s, weight, bias = _operands(q, s, weight, bias)
    class_index = operand("class_index", class_index, torch.int64, (s.shape[0],))
    scores = q.new_empty(q.shape[0], num_classes, dtype=compute_dtype(q.dtype))
    extension.class_scores(
        DTYPE[q.dtype],
        threads(),
        METRIC[metric],
        reduce == "mean",
        q.shape[0],
        s.shape[0],
        q.shape[1],
        num_classes,
        q.data_ptr(),
        s.data_ptr(),
        address(weight),
        address(bias),
        class_index.data_ptr(),
        scores.data_ptr(),
    )
    return scores


KERNELS = {"pack_support": pack_support, "nearest_support": nearest_support, "class_scores": class_scores}
