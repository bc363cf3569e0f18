"""CUDA C++ kernels of the Koch head: pairs with their cross-entropy, and all pairs; float32, float16 and
bfloat16.
"""

from __future__ import annotations

import torch
from torch import Tensor

from siamese_fast import _cuda as extension
from siamese_fast.ops._checks import compute_dtype

STORAGE = {torch.float32: 0, torch.float16: 2, torch.bfloat16: 3}
LOGITS, BACKWARD, CROSS_ENTROPY, CROSS_ENTROPY_GRADIENT = range(4)


def _operand(name: str, value: Tensor, dtype: torch.dtype, shape: tuple[int, ...], like: Tensor) -> Tensor:
    """`value`, contiguous, once it is what its address will be read as."""
    if value.dtype != dtype or value.shape != shape or value.device != like.device:
        got = f"{value.dtype} {list(value.shape)} on {value.device}"
        raise ValueError(f"{name} must be {dtype} {list(shape)} on {like.device}, got {got}")
    return value.contiguous()


def _address(value: Tensor | None) -> int:
    return 0 if value is None else value.data_ptr()


def _stream(like: Tensor) -> int:
    return torch.cuda.current_stream(like.device).cuda_stream if like.is_cuda else 0


def _launch(like: Tensor, entry: str, *arguments: int | float) -> None:
    """Call an entry point on the device of `like` and its current stream."""
    if like.is_cuda:
        with torch.cuda.device(like.device):
            getattr(extension, entry)(*arguments)
    else:
        getattr(extension, entry)(*arguments)


def _pairs(
    mode: int,
    h1: Tensor,
    h2: Tensor,
    weight: Tensor,
    *,
    bias: Tensor | None = None,
    grad: Tensor | None = None,
    target: Tensor | None = None,
    pos_weight: float = 1.0,
    share: float = 1.0,
    logits: Tensor | None = None,
    each: Tensor | None = None,
    residual: Tensor | None = None,
    sums: Tensor | None = None,
    grads: tuple[Tensor, Tensor] | None = None,
    partial: Tensor | None = None,
) -> None:
    rows, depth = h1.shape
    h1, h2 = h1.contiguous(), _operand("h2", h2, h1.dtype, h1.shape, h1)
    weight = _operand("weight", weight, compute_dtype(h1.dtype), (depth,), h1)
    given = {"bias": (bias, ()), "grad": (grad, (rows,)), "target": (target, (rows,))}
    checked = {
        name: None if value is None else _operand(name, value, weight.dtype, shape, h1)
        for name, (value, shape) in given.items()
    }
    inputs = (h1, h2, weight, checked["bias"], checked["grad"], checked["target"])
    outputs = (logits, each, residual, sums, *(grads or (None, None)), partial)
    _launch(
        h1,
        "l1_similarity_pairs",
        *(STORAGE[h1.dtype], mode, _stream(h1), rows, depth, *map(_address, inputs)),
        *(pos_weight, share, *map(_address, outputs)),
    )


def l1_similarity(h1: Tensor, h2: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    logits = weight.new_empty(h1.shape[0])
    _pairs(LOGITS, h1, h2, weight, bias=bias, logits=logits)
    return logits


def l1_similarity_backward(
    grad: Tensor, h1: Tensor, h2: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grads = (torch.empty_like(h1, memory_format=torch.contiguous_format), h2.new_empty(h2.shape))
    partial = weight.new_empty(extension.pair_blocks(h1.shape[0]), h1.shape[1])
    _pairs(BACKWARD, h1, h2, weight, grad=grad, grads=grads, partial=partial)
    return (*grads, partial.sum(0), grad.sum())


def _loss(
    mode: int,
    h1: Tensor,
    h2: Tensor,
    weight: Tensor,
    bias: Tensor,
    target: Tensor,
    pos_weight: float,
    reduction: str,
    grads: tuple[Tensor, Tensor] | None,
) -> tuple[Tensor, Tensor, Tensor]:
    rows, blocks = h1.shape[0], extension.pair_blocks(h1.shape[0])
    share = 1.0 / max(1, rows) if reduction == "mean" else 1.0
    residual, each = weight.new_empty(rows), weight.new_empty(rows) if reduction == "none" else None
    sums = weight.new_empty(blocks, dtype=torch.float64)
    partial = weight.new_empty(blocks if grads else 0, h1.shape[1])
    options = {"bias": bias, "target": target, "each": each, "residual": residual, "sums": sums}
    _pairs(mode, h1, h2, weight, pos_weight=pos_weight, share=share, grads=grads, partial=partial, **options)
    loss = (sums.sum() * share).to(weight.dtype) if each is None else each
    return loss, residual, partial


def l1_similarity_bce(
    h1: Tensor, h2: Tensor, weight: Tensor, bias: Tensor, target: Tensor, pos_weight: float, reduction: str
) -> tuple[Tensor, Tensor]:
    return _loss(CROSS_ENTROPY, h1, h2, weight, bias, target, pos_weight, reduction, None)[:2]


def l1_similarity_bce_grad(
    h1: Tensor,
    h2: Tensor,
    weight: Tensor,
    bias: Tensor,
    target: Tensor,
    pos_weight: float,
    reduction: str,
    grad_h1: Tensor,
    grad_h2: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    for name, buffer in (("grad_h1", grad_h1), ("grad_h2", grad_h2)):
        if not buffer.is_contiguous():
            raise ValueError(f"{name} must be contiguous, got strides {list(buffer.stride())}")
        _operand(name, buffer, h1.dtype, h1.shape, h1)
    grads = (grad_h1, grad_h2)
    loss, residual, partial = _loss(
        CROSS_ENTROPY_GRADIENT, h1, h2, weight, bias, target, pos_weight, reduction, grads
    )
    return loss, partial.sum(0), residual.sum()


def _all_pairs(q: Tensor, s: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    s = _operand("s", s, q.dtype, (s.shape[0], q.shape[1]), q)
    return q.contiguous(), s, _operand("weight", weight, compute_dtype(q.dtype), q.shape[1:], q)


def l1_similarity_matrix(q: Tensor, s: Tensor, weight: Tensor, bias: Tensor, exact: bool) -> Tensor:
    out = weight.new_empty(q.shape[0], s.shape[0])
    l1_similarity_matrix_out(q, s, weight, bias, exact, out)
    return out


def l1_similarity_matrix_out(
    q: Tensor, s: Tensor, weight: Tensor, bias: Tensor, exact: bool, out: Tensor
) -> None:
    """The exact form whether or not another is allowed: the absolute value is free."""
    q, s, weight = _all_pairs(q, s, weight)
    bias = _operand("bias", bias, weight.dtype, (), q)
    if _operand("out", out, weight.dtype, (q.shape[0], s.shape[0]), q) is not out:
        raise ValueError(f"out must be contiguous, got strides {list(out.stride())}")
    _launch(
        q,
        "l1_similarity_matrix",
        *(STORAGE[q.dtype], _stream(q), q.shape[0], s.shape[0], q.shape[1]),
        *map(_address, (q, s, weight, bias, out)),
    )


def l1_similarity_matrix_backward(
    grad: Tensor, q: Tensor, s: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    q, s, weight = _all_pairs(q, s, weight)
    grad = _operand("grad", grad, weight.dtype, (q.shape[0], s.shape[0]), q)
    centre = s.to(weight.dtype).sum(0) / max(1, s.shape[0])
    grad_q, grad_s = torch.empty_like(q), torch.empty_like(s)
    partial_q, partial_s = (
        weight.new_empty(extension.backward_blocks(rows.shape[0]), q.shape[1]) for rows in (q, s)
    )
    _launch(
        q,
        "l1_similarity_matrix_backward",
        *(STORAGE[q.dtype], _stream(q), q.shape[0], s.shape[0], q.shape[1]),
        *map(_address, (grad, q, s, weight, centre, grad_q, grad_s, partial_q, partial_s)),
    )
    return grad_q, grad_s, partial_q.sum(0) + partial_s.sum(0), grad.sum()


KERNELS = {
    "l1_similarity": l1_similarity,
    "l1_similarity_backward": l1_similarity_backward,
    "l1_similarity_bce": l1_similarity_bce,
    "l1_similarity_bce_grad": l1_similarity_bce_grad,
    "l1_similarity_matrix": l1_similarity_matrix,
    "l1_similarity_matrix_out": l1_similarity_matrix_out,
    "l1_similarity_matrix_backward": l1_similarity_matrix_backward,
}
