"""Losses over all pairs whose columns come part by part, by the folds of `siamese_fast.ops.pair_fold`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from torch import Tensor

from siamese_fast.ops.pair_fold import FOLDS, start_of, visited
from siamese_fast.ops.pair_loss import Parameters
from siamese_fast.ops.relations import pair_counts

Against = tuple[Tensor | None, Tensor | None, Tensor | None]


class Folded(NamedTuple):
    """Losses and counts of terms [N, components], positives and negatives [N, 2], statistics [fields, N]."""

    losses: Tensor
    counts: Tensor
    pairs: Tensor
    statistics: Tensor


def folded(
    x: Tensor,
    labels: Tensor,
    parts: Callable[[], Iterable[Against]],
    formula: str,
    metric: str,
    parameters: Parameters,
) -> Folded:
    """Of rows x [N, D] as `pair_loss.prepared` gives them. Each call of `parts` gives all columns once: rows
    [M, D], labels [M] and self_index [N] of a part, all None for x itself.
    """
    fold, fields = FOLDS[formula], start_of(formula, x)
    pairs = x.new_zeros(x.shape[0], 2)
    for sweep in range(fold.sweeps):
        for part in parts():
            if x.shape[0] and (part[0] is None or part[0].shape[0]):
                fields = visited(fields, x, labels, *part, formula, metric, parameters, sweep)
                pairs = pairs + pair_counts(labels, *part[1:], x) if sweep == 0 else pairs
        fold.close(fields, pairs[:, 0], pairs[:, 1], sweep, parameters)
    losses, counts = fold.finish(fields, pairs[:, 0], parameters)
    return Folded(losses.clone(), counts.clone(), pairs, fields)
