"""C++ kernels of `siamese_fast.ops.batch_all_triplet_loss`."""

from __future__ import annotations

from torch import Tensor

from siamese_fast.native._call import METRIC, address, extension, fresh, operand
from siamese_fast.native.pair_loss import pair_operands


def batch_all(
    x: Tensor,
    labels: Tensor,
    ref: Tensor | None,
    ref_labels: Tensor | None,
    self_index: Tensor | None,
    margin: float,
    metric: str,
    with_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    operands = (x, labels, ref, ref_labels, self_index)
    return _run(operands, margin, metric, None, with_gradient)


def batch_all_backward(
    grad: Tensor,
    x: Tensor,
    labels: Tensor,
    ref: Tensor | None,
    ref_labels: Tensor | None,
    self_index: Tensor | None,
    sum_x: Tensor,
    sum_ref: Tensor,
    margin: float,
    metric: str,
) -> tuple[Tensor, Tensor]:
    """Where all anchors weigh the same, and the forward pass found the gradient of their sum, this is
    scaled.
    """
    if sum_x.numel() and bool((grad == grad[0]).all()):
        return sum_x * grad[0], sum_ref * grad[0]
    grad = operand("grad", grad, x.dtype, (x.shape[0],))
    return _run((x, labels, ref, ref_labels, self_index), margin, metric, grad, True)[2:]


def _run(
    operands: tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None],
    margin: float,
    metric: str,
    weight: Tensor | None,
    with_gradient: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    (x, _, ref, _, _), (dtype, team, is_self, *rest) = pair_operands(*operands)
    losses, counts = x.new_empty(x.shape[0]), x.new_empty(x.shape[0])
    grad_x = fresh(x.shape, x.dtype) if with_gradient else x.new_empty(0)
    grad_ref = fresh(ref.shape, x.dtype) if with_gradient and ref is not None else x.new_empty(0)
    extension.batch_all(
        dtype,
        team,
        METRIC[metric],
        is_self,
        margin,
        *rest,
        address(weight),
        losses.data_ptr(),
        counts.data_ptr(),
        address(grad_x if with_gradient else None),
        address(grad_ref if with_gradient and ref is not None else None),
    )
    return losses, counts, grad_x, grad_ref


KERNELS = {"batch_all": batch_all, "batch_all_backward": batch_all_backward}
