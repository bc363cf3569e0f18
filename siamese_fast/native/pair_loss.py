"""C++ kernels of `siamese_fast.ops.pair_loss` and `siamese_fast.ops.pair_fold`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
CLASSES, MATRIX, SETS = range(3)


def pair_operands(
    x: Tensor,
    labels: Tensor,
    ref: Tensor | None,
    ref_labels: Tensor | None,
    self_index: Tensor | None,
    ignore_label: int | None = None,
) -> tuple[Operands, tuple[int | bool, ...]]:
    """The tensors as their addresses will be read, and: dtype, threads, whether without `ref`, sizes,
    addresses, the relation. A relation that is not of classes is always with a `ref`.
    """
    rows, depth = x.shape
    x = operand("x", x, compute_dtype(x.dtype), (rows, depth))
    relation = CLASSES if labels.dim() == 1 else MATRIX if labels.dtype == torch.int8 else SETS
    if relation != CLASSES and ref is None:
        ref, ref_labels, self_index = x, labels, torch.arange(rows)
    columns = rows if ref is None else ref.shape[0]
    kind = torch.int8 if relation == MATRIX else torch.int64
    words = labels.shape[1] if relation == SETS else 0
    width = () if relation == CLASSES else (words or columns,)
    labels = operand("labels", labels, kind, (rows, *width))
    if ref is not None and ref_labels is not None:
        ref = operand("ref", ref, x.dtype, (columns, depth))
        ref_labels = operand(
            "ref_labels", ref_labels, kind, (rows if relation == MATRIX else columns, *width)
        )
    if self_index is not None:
        self_index = operand("self_index", self_index, torch.int64, (rows,))
    numbers = (
        DTYPE[x.dtype],
        threads(),
        ref is None,
        rows,
        columns,
        depth,
        x.data_ptr(),
        address(ref),
        labels.data_ptr(),
        address(ref_labels),
        address(self_index),
        relation,
        words,
        ignore_label is not None,
        ignore_label or 0,
    )
    return (x, labels, ref, ref_labels, self_index), numbers


def output(shape: Sequence[int], x: Tensor, ignore_label: int | None) -> Tensor:
    """Uninitialised, but zeros where kernels leave out rows."""
    return x.new_empty(shape) if ignore_label is None else x.new_zeros(shape)


def gradient(like: Tensor, ignore_label: int | None) -> Tensor:
    found = fresh(like.shape, like.dtype)
    return found if ignore_label is None else found.zero_()


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
    ignore_label: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    kept, numbers = pair_operands(x, labels, ref, ref_labels, self_index, ignore_label)
    x, found = kept[0], FORMULAS[formula]
    losses = output((x.shape[0], found.components), x, ignore_label)
    counts, statistics = torch.zeros_like(losses), output((found.fields, x.shape[0]), x, ignore_label)
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
    ignore_label: int | None = None,
) -> tuple[Tensor, Tensor]:
    kept, numbers = pair_operands(x, labels, ref, ref_labels, self_index, ignore_label)
    x = kept[0]
    grad = operand("grad", grad, x.dtype, (x.shape[0], FORMULAS[formula].components))
    statistics = operand("statistics", statistics, x.dtype, (FORMULAS[formula].fields, x.shape[0]))
    grad_x = gradient(x, ignore_label)
    grad_ref = None if kept[2] is None else gradient(kept[2], ignore_label)
    call = _call(extension.pair_loss_backward, numbers, formula, metric, parameters)
    call(grad.data_ptr(), statistics.data_ptr(), grad_x.data_ptr(), address(grad_ref))
    del kept
    return joined(grad_x, grad_ref, ref)


def joined(grad_x: Tensor, grad_ref: Tensor | None, ref: Tensor | None) -> tuple[Tensor, Tensor]:
    """Where a relation made the rows their own `ref`, both gradients are theirs."""
    if grad_ref is None:
        return grad_x, grad_x.new_empty(0)
    return (grad_x.add_(grad_ref), grad_x.new_empty(0)) if ref is None else (grad_x, grad_ref)


KERNELS = {
    "pair_loss": pair_loss,
    "pair_loss_visit": pair_loss_visit,
    "pair_loss_backward": pair_loss_backward,
}
