"""C++ kernels of `siamese_fast.ops.triplet_sums`: of every triplet, of the semi-hard ones."""

from __future__ import annotations

from torch import Tensor

from siamese_fast.native._call import HINGE, METRIC, address, extension, operand
from siamese_fast.native.pair_loss import Operands, gradient, joined, output, pair_operands

RULES = {"all": extension.batch_all, "semi_hard": extension.semi_hard}
Found = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def triplet_sums(
    x: Tensor,
    labels: Tensor,
    ref: Tensor | None,
    ref_labels: Tensor | None,
    self_index: Tensor | None,
    margin: float,
    metric: str,
    rule: str,
    hinge: str,
    with_gradient: bool,
    ignore_label: int | None = None,
) -> Found:
    operands = (x, labels, ref, ref_labels, self_index)
    return _run(operands, margin, metric, rule, hinge, None, with_gradient, ignore_label)


def triplet_sums_backward(
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
    rule: str,
    hinge: str,
    ignore_label: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Where all anchors weigh the same, and the forward pass found the gradient of their sum, this is
    scaled.
    """
    if sum_x.numel() and bool((grad == grad[0]).all()):
        return sum_x * grad[0], sum_ref * grad[0]
    grad = operand("grad", grad, x.dtype, (x.shape[0],))
    operands = (x, labels, ref, ref_labels, self_index)
    return _run(operands, margin, metric, rule, hinge, grad, True, ignore_label)[3:]


def _run(
    operands: Operands,
    margin: float,
    metric: str,
    rule: str,
    hinge: str,
    weight: Tensor | None,
    with_gradient: bool,
    ignore_label: int | None,
) -> Found:
    kept, (dtype, team, is_self, *rest) = pair_operands(*operands, ignore_label)
    x, other = kept[0], kept[2]
    losses, counts, sums = (output((*shape, x.shape[0]), x, ignore_label) for shape in ((), (), (2,)))
    grad_x = gradient(x, ignore_label) if with_gradient else x.new_empty(0)
    grad_ref = gradient(other, ignore_label) if with_gradient and other is not None else None
    RULES[rule](
        dtype,
        team,
        METRIC[metric],
        is_self,
        margin,
        HINGE[hinge],
        *rest,
        address(weight),
        losses.data_ptr(),
        counts.data_ptr(),
        sums.data_ptr(),
        address(grad_x if with_gradient else None),
        address(grad_ref),
    )
    del kept
    return (losses, counts, sums, *joined(grad_x, grad_ref, operands[2]))


KERNELS = {"triplet_sums": triplet_sums, "triplet_sums_backward": triplet_sums_backward}
