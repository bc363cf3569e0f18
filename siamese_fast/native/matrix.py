"""C++ kernels over all pairs of rows: the matrices of `ops.distance`, and `ops.l1_similarity_matrix`."""

from __future__ import annotations

from torch import Tensor

from siamese_fast.native._call import (
    DTYPE,
    METRIC,
    address,
    compute_dtype,
    extension,
    fresh,
    fresh_like,
    operand,
    receiver,
    threads,
)


def _write(
    metric: str, exact: bool, x: Tensor, y: Tensor, weight: Tensor | None, bias: Tensor | None, out: Tensor
) -> None:
    compute, depth = compute_dtype(x.dtype), x.shape[1]
    x, y = x.contiguous(), operand("y", y, x.dtype, (y.shape[0], depth))
    weight = None if weight is None else operand("weight", weight, compute, (depth,))
    bias = None if bias is None else operand("bias", bias, compute, ())
    receiver("out", out, compute, (x.shape[0], y.shape[0]))
    extension.matrix(
        DTYPE[x.dtype],
        threads(),
        METRIC[metric],
        exact,
        x.shape[0],
        y.shape[0],
        x.shape[1],
        x.data_ptr(),
        y.data_ptr(),
        address(weight),
        address(bias),
        out.data_ptr(),
    )


def _gradients(
    metric: str, grad: Tensor, x: Tensor, y: Tensor, weight: Tensor | None, distances: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    compute, shape = compute_dtype(x.dtype), (x.shape[0], y.shape[0])
    grad = operand("grad", grad, compute, shape)
    x, y = x.contiguous(), operand("y", y, x.dtype, (y.shape[0], x.shape[1]))
    weight = None if weight is None else operand("weight", weight, compute, (x.shape[1],))
    distances = None if distances is None else operand("distances", distances, compute, shape)
    grad_x, grad_y = fresh_like(x), fresh_like(y)
    grad_weight = grad.new_empty(0 if weight is None else x.shape[1])
    grad_bias = grad.new_empty(())
    extension.matrix_backward(
        DTYPE[x.dtype],
        threads(),
        METRIC[metric],
        x.shape[0],
        y.shape[0],
        x.shape[1],
        grad.data_ptr(),
        x.data_ptr(),
        y.data_ptr(),
        address(weight),
        address(distances),
        grad_x.data_ptr(),
        grad_y.data_ptr(),
        grad_weight.data_ptr(),
        grad_bias.data_ptr(),
    )
    return grad_x, grad_y, grad_weight, grad_bias


def distance_matrix(x: Tensor, y: Tensor, metric: str) -> Tensor:
    out = fresh((x.shape[0], y.shape[0]), compute_dtype(x.dtype))
    _write(metric, True, x, y, None, None, out)
    return out


def distance_matrix_backward(
    grad: Tensor, x: Tensor, y: Tensor, distances: Tensor, metric: str
) -> tuple[Tensor, Tensor]:
    return _gradients(metric, grad, x, y, None, distances)[:2]


def l1_similarity_matrix(q: Tensor, s: Tensor, weight: Tensor, bias: Tensor, exact: bool) -> Tensor:
    out = fresh((q.shape[0], s.shape[0]), weight.dtype)
    _write("koch", exact, q, s, weight, bias, out)
    return out


def l1_similarity_matrix_out(
    q: Tensor, s: Tensor, weight: Tensor, bias: Tensor, exact: bool, out: Tensor
) -> None:
    _write("koch", exact, q, s, weight, bias, out)


def l1_similarity_matrix_backward(
    grad: Tensor, q: Tensor, s: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _gradients("koch", grad, q, s, weight, None)


KERNELS = {
    "distance_matrix": distance_matrix,
    "distance_matrix_backward": distance_matrix_backward,
    "l1_similarity_matrix": l1_similarity_matrix,
    "l1_similarity_matrix_out": l1_similarity_matrix_out,
    "l1_similarity_matrix_backward": l1_similarity_matrix_backward,
}
