"""C++ kernels of the row-by-row half of `siamese_fast.ops.distance`."""

from __future__ import annotations

from torch import Tensor

from siamese_fast.native._call import DTYPE, METRIC, compute_dtype, extension, fresh_like, operand, threads


def distance(x: Tensor, y: Tensor, metric: str) -> Tensor:
    x, y = x.contiguous(), operand("y", y, x.dtype, x.shape)
    rows, depth = x.shape
    distances = x.new_empty(rows, dtype=compute_dtype(x.dtype))
    extension.distance(
        DTYPE[x.dtype],
        threads(),
        METRIC[metric],
        rows,
        depth,
        x.data_ptr(),
        y.data_ptr(),
        distances.data_ptr(),
    )
    return distances


def distance_backward(
    grad: Tensor, x: Tensor, y: Tensor, distances: Tensor, metric: str
) -> tuple[Tensor, Tensor]:
    x, y = x.contiguous(), operand("y", y, x.dtype, x.shape)
    rows, depth = x.shape
    compute = compute_dtype(x.dtype)
    grad, distances = (
        operand("grad", grad, compute, (rows,)),
        operand("distances", distances, compute, (rows,)),
    )
    grad_x, grad_y = fresh_like(x), fresh_like(y)
    extension.distance_backward(
        DTYPE[x.dtype],
        threads(),
        METRIC[metric],
        rows,
        depth,
        grad.data_ptr(),
        x.data_ptr(),
        y.data_ptr(),
        distances.data_ptr(),
        grad_x.data_ptr(),
        grad_y.data_ptr(),
    )
    return grad_x, grad_y


KERNELS = {"distance": distance, "distance_backward": distance_backward}
