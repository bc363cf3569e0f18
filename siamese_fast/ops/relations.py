"""Which pairs of rows are positives and which negatives, and what each row weighs: one mechanism for every
loss.

Two rows are positives when they have one label; or share a label of several (`labels` [N, C], multi-hot); or
when a matrix says so (`pair_mask`). Rows of `ignore_label` take no part.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from siamese_fast.ops import _checks as check
from siamese_fast.ops._metrics import row_blocks
from siamese_fast.ops.hardest_pairs import mining_arguments

BITS = 64

Related = tuple[Tensor, Tensor, Tensor | None, Tensor | None, Tensor | None]


@dataclass(frozen=True)
class Choice:
    """What users may add to labels.

    Attributes:
        weight: [N] of the compute dtype or of the embeddings', not negative: multiplies each anchor's terms.
        ignore_label: rows with it are neither anchors nor positives nor negatives.
        pair_mask: [N, M] bool or integers: 1 a positive, 0 a negative, -1 neither; instead of labels.
    """

    weight: Tensor | None = None
    ignore_label: int | None = None
    pair_mask: Tensor | None = None

    def related(
        self,
        x: Tensor,
        labels: Tensor | None,
        ref: Tensor | None,
        ref_labels: Tensor | None,
        self_index: Tensor | None,
    ) -> Related:
        """The arguments, checked; labels as the engine takes them: int64 [N], bits int64 [N, W], or the
        relation int8 [N, M].
        """
        if self.ignore_label is not None and (
            isinstance(self.ignore_label, bool) or not isinstance(self.ignore_label, int)
        ):
            raise TypeError(f"ignore_label must be None or an int, got {type(self.ignore_label).__name__}")
        several = isinstance(labels, Tensor) and labels.dim() == 2
        if self.pair_mask is None and not several:
            found: Related = mining_arguments(x, labels, ref, ref_labels, self_index)  # type: ignore[arg-type]
        else:
            found = self._related(x, labels, ref, ref_labels, self_index)
        self.check_weight(found[0])
        return found

    def _related(
        self,
        x: Tensor,
        labels: Tensor | None,
        ref: Tensor | None,
        ref_labels: Tensor | None,
        self_index: Tensor | None,
    ) -> Related:
        if self.ignore_label is not None:
            raise ValueError("ignore_label goes with labels [N]; in pair_mask, -1 leaves a pair out")
        x = check.embeddings("x", x)
        rows = torch.zeros(x.shape[0], dtype=torch.int64, device=x.device)
        columns = None if ref is None else rows.new_zeros(ref.shape[0])
        x, _, ref, _, self_index = mining_arguments(x, rows, ref, columns, self_index)
        others = x if ref is None else ref
        if self.pair_mask is not None:
            if labels is not None or ref_labels is not None:
                raise ValueError("pair_mask takes the place of labels: give None for labels and ref_labels")
            relation = _matrix("pair_mask", self.pair_mask, x, (x.shape[0], others.shape[0]))
            kinds = relation.sign().to(torch.int8).contiguous()
            return x, kinds, ref, None if ref is None else kinds, self_index
        assert labels is not None
        sets = _bits(_matrix("labels", labels, x, (x.shape[0], labels.shape[1])))
        if (ref is None) != (ref_labels is None):
            raise ValueError("ref and ref_labels go together: give both or neither")
        if ref is None or ref_labels is None:
            return x, sets, None, None, None
        many = _matrix("ref_labels", ref_labels, x, (ref.shape[0], labels.shape[1]))
        return x, sets, ref, _bits(many), self_index

    def check_weight(self, x: Tensor, count: int | None = None) -> None:
        """One for each of the rows `x`, or `count` of them."""
        if self.weight is None:
            return
        rows = x.shape[0] if count is None else count
        if not isinstance(self.weight, Tensor) or tuple(self.weight.shape) != (rows,):
            got = list(self.weight.shape) if isinstance(self.weight, Tensor) else type(self.weight).__name__
            raise ValueError(f"weight must be a tensor of shape [{rows}], got {got}")
        accepted = (x.dtype, check.compute_dtype(x.dtype))
        if self.weight.dtype not in accepted:
            names = " or ".join(sorted({str(dtype) for dtype in accepted}))
            raise TypeError(f"weight must be {names} beside {x.dtype} embeddings, got {self.weight.dtype}")
        check.same_device("weight", self.weight, "the embeddings", x)

    def weighted(self, values: Tensor) -> Tensor:
        """Values [N] or [N, C], multiplied by the weights of their rows."""
        if self.weight is None:
            return values
        weight = self.weight.to(values.dtype)
        return values * (weight if values.dim() == 1 else weight[:, None])


EVERY_ROW = Choice()


def _matrix(name: str, value: Tensor, x: Tensor, shape: tuple[int, int]) -> Tensor:
    if not isinstance(value, Tensor) or tuple(value.shape) != shape:
        got = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"{name} must be a tensor of shape {list(shape)}, got {got}")
    if value.is_floating_point() or value.is_complex():
        raise TypeError(f"{name} must be of an integer or bool dtype, got {value.dtype}")
    check.same_device(name, value, "the embeddings", x)
    return value


def _bits(several: Tensor) -> Tensor:
    """Multi-hot rows [N, C] as sets of bits, int64 [N, W]."""
    rows, classes = several.shape
    words = max(1, -(-classes // BITS))
    bits = torch.zeros(rows, words * BITS, dtype=torch.int64, device=several.device)
    bits[:, :classes] = several != 0
    return (bits.view(rows, words, BITS) << torch.arange(BITS, device=several.device)).sum(2)


def own_columns(x: Tensor, ref: Tensor | None, self_index: Tensor | None) -> Tensor | None:
    return torch.arange(x.shape[0], device=x.device) if ref is None else self_index


def masks(
    labels: Tensor, classes: Tensor, own: Tensor | None, rows: slice, ignore_label: int | None = None
) -> tuple[Tensor, Tensor]:
    """Positives and negatives [n, M] of some rows, labels as `Choice.related` gives them."""
    if labels.dim() == 2:
        return _related_masks(labels, classes, own, rows)
    same = labels[rows, None] == classes[None, :]
    positive, negative = same, ~same
    if own is not None:
        positive = same & (own[rows, None] != torch.arange(classes.shape[0], device=classes.device))
    if ignore_label is not None:
        kept = (labels[rows, None] != ignore_label) & (classes[None, :] != ignore_label)
        positive, negative = positive & kept, negative & kept
    return positive, negative


def _related_masks(labels: Tensor, classes: Tensor, own: Tensor | None, rows: slice) -> tuple[Tensor, Tensor]:
    if labels.dtype == torch.int8:
        positive, negative = labels[rows] > 0, labels[rows] == 0
    else:
        positive = ((labels[rows, None] & classes[None]) != 0).any(2)
        negative = ~positive
    if own is not None:
        other = own[rows, None] != torch.arange(positive.shape[1], device=labels.device)
        positive, negative = positive & other, negative & other
    return positive, negative


def pair_counts(
    labels: Tensor,
    ref_labels: Tensor | None,
    self_index: Tensor | None,
    like: Tensor,
    ignore_label: int | None = None,
) -> Tensor:
    """Positives and negatives of each row, [N, 2]."""
    if labels.dim() == 2 or ignore_label is not None:
        return _counted(labels, ref_labels, self_index, like, ignore_label)
    labels = labels.to(torch.int64).contiguous()
    classes = labels if ref_labels is None else ref_labels.to(torch.int64)
    ordered = classes.sort().values
    same = torch.searchsorted(ordered, labels, right=True) - torch.searchsorted(ordered, labels)
    own = torch.ones_like(same) if ref_labels is None else torch.zeros_like(same)
    if self_index is not None:
        found = self_index.to(torch.int64)
        if classes.shape[0]:
            own = ((found >= 0) & (classes[found.clamp_min(0)] == labels)).to(same.dtype)
    return torch.stack([same - own, classes.shape[0] - same], 1).to(like.dtype)


def _counted(
    labels: Tensor,
    ref_labels: Tensor | None,
    self_index: Tensor | None,
    like: Tensor,
    ignore_label: int | None,
) -> Tensor:
    classes = labels if ref_labels is None else ref_labels
    own = torch.arange(labels.shape[0], device=labels.device) if ref_labels is None else self_index
    counts = like.new_zeros(labels.shape[0], 2)
    columns = labels.shape[1] if labels.dtype == torch.int8 else classes.shape[0]
    for rows in row_blocks(labels.shape[0], columns):
        kinds = masks(labels, classes, own, rows, ignore_label)
        counts[rows] = torch.stack([kind.sum(1) for kind in kinds], 1).to(like.dtype)
    return counts
