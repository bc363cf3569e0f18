"""C++ kernels of `siamese_fast.ops.pair_loss` and `siamese_fast.ops.pair_fold`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

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
from siamese_fast.ops.pair_loss import FORMULAS

FORMULA = {"ntxent": 0, "supcon": 1, "contrastive": 2, "multi_similarity": 3, "circle": 4}
PARAMETERS = 4


Operands = tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]


def pair_operands(
    x: Tensor,
    labels: Tensor,
    ref: Tensor | None,
    ref_labels: Tensor | None,
    self_index: Tensor | None,
) -> tuple[Operands, tuple[int | bool, ...]]:
    """The tensors as their addresses will be read, and: dtype, threads, whether without `ref`, sizes,
    addresses.
    """
    rows, depth = x.shape
    x = operand("x", x, compute_dtype(x.dtype), (rows, depth))
    labels = operand("labels", labels, torch.int64, (rows,))
    if ref is not None and ref_labels is not None:
        ref = operand("ref", ref, x.dtype, (ref.shape[0], depth))
        ref_labels = operand("ref_labels", ref_labels, torch.int64, (ref.shape[0],))
    if self_index is not None:
        self_index = operand("self_index", self_index, torch.int64, (rows,))
    numbers = (
        DTYPE[x.dtype],
        threads(),
        ref is None,
        rows,
        rows if ref is None else ref.shape[0],
        depth,
        x.data_ptr(),
        address(ref),
        labels.data_ptr(),
        address(ref_labels),
        address(self_index),
    )
    return (x, labels, ref, ref_labels, self_index), numbers


def _call(
    kernel: Callable[..., None],
    numbers: tuple[int | bool, ...],
    formula: str,
    metric: str,
    parameters: list[float],
) -> Callable[..., None]:
    dtype, team, is_self, *rest = numbers
    padded = (*parameters, *(0.0,) * (PARAMETERS - len(parameters)))
    return partial(kernel, dtype, team, FORMULA[formula], METRIC[metric], is_self, padded, *rest)


def pair_loss(
    x: Tensor,
    labels: Tensor,
    ref: Tensor | None,
    ref_labels: Tensor | None,
    self_index: Tensor | None,
    formula: str,
    metric: str,
    parameters: list[float],
) -> tuple[Tensor, Tensor, Tensor]:
    (x, *_), numbers = kept = pair_operands(x, labels, ref, ref_labels, self_index)
    losses = x.new_empty(x.shape[0], FORMULAS[formula].components)
    counts, statistics = torch.empty_like(losses), x.new_empty(FORMULAS[formula].fields, x.shape[0])
    call = _call(extension.pair_loss, numbers, formula, metric, parameters)
    call(losses.data_ptr(), counts.data_ptr(), statistics.data_ptr())
    del kept
    return losses, counts, statistics


def pair_loss_visit(
    fields: Tensor,
    x: Tensor,
    labels: Tensor,
    ref: Tensor | None,
    ref_labels: Tensor | None,
    self_index: Tensor | None,
    formula: str,
    metric: str,
    parameters: list[float],
    sweep: int,
) -> Tensor:
    (x, *_), numbers = kept = pair_operands(x, labels, ref, ref_labels, self_index)
    seen = operand("fields", fields, x.dtype, (FORMULAS[formula].fields, x.shape[0])).clone()
    _call(extension.pair_loss_visit, numbers, formula, metric, parameters)(sweep, seen.data_ptr())
    del kept
    return seen


def pair_loss_backward(
    grad: Tensor,
    x: Tensor,
    labels: Tensor,
    ref: Tensor | None,
    ref_labels: Tensor | None,
    self_index: Tensor | None,
    statistics: Tensor,
    formula: str,
    metric: str,
    parameters: list[float],
) -> tuple[Tensor, Tensor]:
    kept = (x, _, ref, _, _), numbers = pair_operands(x, labels, ref, ref_labels, self_index)
    grad = operand("grad", grad, x.dtype, (x.shape[0], FORMULAS[formula].components))
    statistics = operand("statistics", statistics, x.dtype, (FORMULAS[formula].fields, x.shape[0]))
    grad_x = fresh(x.shape, x.dtype)
    grad_ref = None if ref is None else fresh(ref.shape, x.dtype)
    call = _call(extension.pair_loss_backward, numbers, formula, metric, parameters)
    call(grad.data_ptr(), statistics.data_ptr(), grad_x.data_ptr(), address(grad_ref))
    del kept
    return grad_x, x.new_empty(0) if grad_ref is None else grad_ref


KERNELS = {
    "pair_loss": pair_loss,
    "pair_loss_visit": pair_loss_visit,
    "pair_loss_backward": pair_loss_backward,
}
