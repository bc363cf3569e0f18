"""Losses over all pairs, part by part: what a row keeps of the columns seen so far, and how more add to it.

    fields f_i [F]:  start;  for each sweep: visit(columns 1), visit(columns 2), ..., then close

and the closed fields are the statistics of `siamese_fast.ops.pair_loss`: the loss follows from them, and so
does d loss / d score of any column that comes by once more. So columns need not be in one place, or in memory
at one time: `siamese_fast.distributed` takes them from other ranks. A log of a sum of exponentials is two
fields, the largest exponent and the sum relative to it; everything else is a sum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from siamese_fast.ops import _metrics as metrics
from siamese_fast.ops._define import define
from siamese_fast.ops.pair_loss import Parameters, score_block
from siamese_fast.ops.relations import masks, own_columns


@dataclass(frozen=True)
class Columns:
    """Some scores [n, M] of rows with fields [F, n], and which of them are positives, or negatives; adds to
    the fields in place.
    """

    fields: Tensor
    scores: Tensor
    kept: Tensor

    def log_sum(self, top: int, exponents: Tensor) -> None:
        """Fields `top`, `top + 1` of a log of a sum of exponentials."""
        some = self.kept.any(1)
        before, total = self.fields[top], self.fields[top + 1]
        lowest = torch.finfo(before.dtype).min
        most = torch.maximum(exponents.masked_fill(~self.kept, lowest).amax(1), before.clamp_min(lowest))
        added = torch.where(self.kept, (exponents - most[:, None]).exp(), 0.0).sum(1)
        self.fields[top + 1] = torch.where(some, total * (before - most).exp() + added, total)
        self.fields[top] = torch.where(some, most, before)

    def sums(self, first: int, *terms: Tensor) -> None:
        """Fields `first` and on, of terms [n, M] each."""
        for field, term in enumerate(terms, first):
            self.fields[field] += torch.where(self.kept, term, 0.0).sum(1)


@dataclass(frozen=True)
class Fold:
    """How a formula is computed part by part; `csrc/cpu/pair_losses` has the same.

    Attributes:
        start: the fields of a row that has seen nothing.
        visit: `(columns, positive, sweep, parameters)` adds columns that are all positives, or all negatives.
        close: `(fields [F, N], positives [N], negatives [N], sweep, parameters)` completes the fields after a
            sweep, in place; how many there were of each is in the dtype of the fields.
        finish: `(fields, positives [N], parameters)` -> losses and counts [N, components].
        sweeps: how often all columns must come by.
    """

    start: tuple[float, ...]
    visit: Callable[[Columns, bool, int, Parameters], None]
    close: Callable[[Tensor, Tensor, Tensor, int, Parameters], None]
    finish: Callable[[Tensor, Tensor, Parameters], tuple[Tensor, Tensor]]
    sweeps: int = 1


FOLDS: dict[str, Fold] = {}


def start_of(formula: str, x: Tensor) -> Tensor:
    """Fields [F, N] of rows x [N, D]."""
    return x.new_tensor(FOLDS[formula].start)[:, None].expand(-1, x.shape[0]).contiguous()


def visited(
    fields: Tensor,
    x: Tensor,
    labels: Tensor,
    ref: Tensor | None,
    ref_labels: Tensor | None,
    self_index: Tensor | None,
    formula: str,
    metric: str,
    parameters: Parameters,
    sweep: int,
) -> Tensor:
    """Fields [F, N] of rows x [N, D] after they have seen the rows of `ref` too, or each other."""
    found: Tensor = _visit_op(
        fields, x, labels, ref, ref_labels, self_index, formula, metric, parameters, sweep
    )
    return found


def _visit(
    fields: Tensor,
    x: Tensor,
    labels: Tensor,
    ref: Tensor | None,
    ref_labels: Tensor | None,
    self_index: Tensor | None,
    formula: str,
    metric: str,
    parameters: Parameters,
    sweep: int,
) -> Tensor:
    y, classes = (x, labels) if ref is None or ref_labels is None else (ref, ref_labels)
    own = own_columns(x, ref, self_index)
    seen = fields.clone()
    for rows in metrics.row_blocks(x.shape[0], y.shape[0]) if y.shape[0] else ():
        scores = score_block(x[rows], y, metric)
        for positive, kept in zip((True, False), masks(labels, classes, own, rows), strict=True):
            FOLDS[formula].visit(Columns(seen[:, rows], scores, kept), positive, sweep, parameters)
    return seen


_visit_op = define(
    "pair_loss_visit(Tensor fields, Tensor x, Tensor labels, Tensor? ref, Tensor? ref_labels,"
    " Tensor? self_index, str formula, str metric, float[] parameters, int sweep) -> Tensor",
    _visit,
    lambda fields, *_: torch.empty_like(fields),
)
