"""What score tiles are given by those who mine and look up: operands, constants, half norms."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from siamese_fast.kernels._launch import (
    COMPUTE,
    METRIC,
    columns_first,
    config,
    interpreting,
    launch,
    precision,
)
from siamese_fast.kernels.tile import load_rows
from siamese_fast.ops._checks import compute_dtype


@triton.jit
def half_norms(
    p_x, p_out, rows, depth, PRECISION: tl.constexpr, B: tl.constexpr, BK: tl.constexpr, DTYPE: tl.constexpr
):
    """-|x|^2 / 2 of the rows as they enter the product."""
    i = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    m = i < rows
    total = tl.zeros([B], DTYPE)
    for k in range(0, depth, BK):
        x = load_rows(p_x + i[:, None] * depth, m[:, None], k + tl.arange(0, BK), depth)
        if PRECISION == "bf16":
            x = x.to(tl.bfloat16)
        x = x.to(DTYPE)
        total += tl.sum(x * x, 1)
    tl.store(p_out + i, -0.5 * total, mask=m)


def norms_of(y: Tensor, metric: str) -> Tensor:
    """-|y|^2 / 2 in the dtype of the arithmetic, for the metrics that need it."""
    out = y.new_empty(
        y.shape[0] if metric in ("euclidean", "sqeuclidean") else 0, dtype=compute_dtype(y.dtype)
    )
    shape = config("rows", y)
    launch(
        half_norms,
        (triton.cdiv(out.shape[0], shape["B"]),),
        *(y, out, out.shape[0], y.shape[1]),
        PRECISION=precision(y.dtype),
        DTYPE=COMPUTE[out.dtype],
        **shape,
    )
    return out


def score_operands(x: Tensor, y: Tensor, metric: str) -> tuple[Tensor, Tensor, dict[str, object]]:
    """Operands of score tiles and their constants: on the tensor cores where the metric is a product."""
    tensor = x.dtype != torch.float64 and metric not in ("manhattan", "koch")
    shape: dict[str, object] = dict(config("product" if tensor else "difference", x))
    shape |= {"TENSOR": tensor, "METRIC": METRIC[metric], "DTYPE": COMPUTE[compute_dtype(x.dtype)]}
    shape |= {"PRECISION": precision(x.dtype), "UPCAST": interpreting}
    shape["WHOLE"] = tensor and x.shape[1] <= int(str(shape["BK"]))
    shape.setdefault("BK", 16)
    if not tensor:
        left = columns_first(x)
        x, y = left, left if y is x else columns_first(y)
    return x, y, shape
