"""A support set prepared once for many look-ups: rows as the kernels take them, packed for the product."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from siamese_fast.ops import _checks as check
from siamese_fast.ops import _metrics as metrics
from siamese_fast.ops._define import define, unknown_size


@dataclass(frozen=True)
class PreparedSupport:
    """What `prepare_support` returns: accepted by `nearest_support` and `class_scores` wherever `s` is.

    Attributes:
        rows: the supports [S, D], of unit length for cosine.
        metric: the metric they were prepared for.
        weight, bias: the Koch head, when they were prepared for one.
        class_index, num_classes: the class of each support, when given.
        packed: rows and norms in the layout of the kernel that will read them; empty when no kernel wants
            one.
        dtype: of the supports as they were given, and so of the queries.
    """

    rows: Tensor
    metric: str
    weight: Tensor | None
    bias: Tensor | None
    class_index: Tensor | None
    num_classes: int | None
    packed: Tensor
    dtype: torch.dtype

    def __len__(self) -> int:
        return self.rows.shape[0]


def prepare_support(
    s: Tensor,
    metric: str = "euclidean",
    *,
    weight: Tensor | None = None,
    bias: Tensor | float | None = None,
    class_index: Tensor | None = None,
    num_classes: int | None = None,
) -> PreparedSupport:
    """Prepare supports [S, D] once, so that each look-up reads them as they are.

    Args:
        s: supports [S, D]; the prepared set holds a copy.
        metric: as for `nearest_support`; with `weight` [D] (and `bias`) the Koch logit instead.
        class_index, num_classes: the class of each support [S] in 0..num_classes-1, for `class_scores`.

    Example:
        >>> support = prepare_support(embeddings, "cosine")
        >>> scores, index = nearest_support(queries, support, k=5)
    """
    check.choice("metric", metric, check.METRICS)
    s = check.embeddings("s", s).detach()
    if class_index is not None:
        class_index, num_classes = classes_of(class_index, s, num_classes)
    if weight is not None:
        metric, weight, bias = "koch", check.weight(weight, s).detach(), check.bias(bias, s).detach()
    elif bias is not None:
        raise ValueError("bias goes with weight: the other metrics have none")
    rows = metrics.operand(s, metric) if metric == "cosine" else s.clone()
    packed: Tensor = _pack_op(rows, metric)
    return PreparedSupport(rows, metric, weight, bias, class_index, num_classes, packed, s.dtype)


def classes_of(class_index: Tensor, s: Tensor, num_classes: int | None) -> tuple[Tensor, int]:
    """Class numbers [S] as int64, checked to lie in 0..C-1 on the CPU, and C: by default the largest + 1."""
    class_index = check.labels("class_index", class_index, s.shape[0], s)
    if num_classes is None:
        num_classes = int(class_index.max()) + 1 if class_index.numel() else 0
    if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 0:
        raise ValueError(f"num_classes must be a non-negative integer, got {num_classes!r}")
    if class_index.device.type == "cpu" and class_index.numel() and not torch.compiler.is_compiling():
        low, high = torch.aminmax(class_index)
        if int(low) < 0 or int(high) >= num_classes:
            raise IndexError(
                f"class_index must lie in [0, {num_classes}), got values from {int(low)} to {int(high)}"
            )
    return class_index, num_classes


def resolve(
    q: Tensor,
    s: Tensor | PreparedSupport,
    metric: str | None,
    weight: Tensor | None,
    bias: Tensor | float | None,
) -> tuple[Tensor, PreparedSupport]:
    """Checked queries and supports for a look-up; supports given as rows are wrapped without packing."""
    q = check.embeddings("q", q).detach()
    if isinstance(s, PreparedSupport):
        if weight is not None or bias is not None:
            raise ValueError("weight and bias belong to prepare_support when s is a prepared set")
        if metric is not None and metric != s.metric:
            raise ValueError(f"metric is {metric!r} but s was prepared for {s.metric!r}")
        support = s
    else:
        metric = "euclidean" if metric is None else metric
        check.choice("metric", metric, check.METRICS)
        rows = check.embeddings("s", s, like=("q", q)).detach()
        if weight is not None:
            metric, weight, bias = "koch", check.weight(weight, q).detach(), check.bias(bias, q).detach()
        elif bias is not None:
            raise ValueError("bias goes with weight: the other metrics have none")
        none = q.new_empty(0, dtype=torch.uint8)
        support = PreparedSupport(
            metrics.operand(rows, metric), metric, weight, bias, None, None, none, q.dtype
        )
    if q.dtype != support.dtype:
        raise TypeError(f"q is {q.dtype} and s is {support.dtype}: they must agree")
    q = metrics.operand(q, support.metric)
    check.embeddings("q", q, like=("s", support.rows))
    return q, support


def score_block(q: Tensor, s: Tensor, metric: str, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """Scores [Q, S] in plain torch, larger is better."""
    if metric == "koch":
        assert weight is not None and bias is not None
        return ((q[:, None, :] - s[None, :, :]).abs() * weight).sum(2) + bias
    scores = -metrics.distance_block(q, s, metric)
    return 1 + scores if metric == "cosine" else scores


def score_columns(s: Tensor, metric: str) -> int:
    """What one row of queries costs `score_block` in elements."""
    return s.shape[0] * (s.shape[1] if metric == "koch" else 1)


_pack_op = define(
    "pack_support(Tensor rows, str metric) -> Tensor",
    lambda rows, metric: rows.new_empty(0, dtype=torch.uint8),
    lambda rows, metric: rows.new_empty(unknown_size(), dtype=torch.uint8),
)
