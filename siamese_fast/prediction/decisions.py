"""From scores to labels: the best class, how many share its score, and the open set."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from siamese_fast.prediction.gallery import Gallery
from siamese_fast.prediction.inputs import label_kind

Array = NDArray[Any]


class Decisions(NamedTuple):
    """One entry a query."""

    best: Array  # the best class score [Q]
    winner: Array  # the first class that has it, int64 [Q]
    ties: Array  # how many classes have it, int64 [Q]
    asked: Array  # whether the class asked about has it, bool [Q]


def decide(blocks: Iterable[Tensor], column: Array) -> Decisions:
    """Decide from blocks of scores `[q, C]`; `column` `[Q]` is a class to ask about for each query.

    A NaN score never wins; ValueError where all scores of a query are NaN.
    """
    parts, first = [], 0
    for scores in blocks:
        bad = scores.isnan()
        if bad.all(1).any():
            row = first + int(bad.all(1).nonzero()[0, 0])
            raise ValueError(
                f"every class score of query {row} is NaN: its embedding or the head's weights overflow"
            )
        scores = scores.masked_fill(bad, -torch.inf)
        winner = scores.argmax(1, keepdim=True)
        best = scores.gather(1, winner)
        equal = scores == best
        asked = torch.from_numpy(column[first : first + len(scores)]).to(scores.device)
        part = (best[:, 0], winner[:, 0], equal.sum(1), equal.gather(1, asked[:, None])[:, 0])
        parts.append([t.cpu().numpy() for t in part])
        first += len(scores)
    return Decisions(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def decide_by_nearest(blocks: Iterable[Tensor], gallery: Gallery, column: Array) -> Decisions:
    """`decide` under reduce="max" from blocks of queries `[q, D]`, without a score for every class.

    The two nearest supports settle every query but those where they score the same.
    """
    parts, first = [], 0
    for queries in blocks:
        found, index = gallery.nearest(queries, 2)
        winner = gallery.class_of(index[:, 0]).cpu().numpy()
        scores = found.cpu().numpy()
        asked = column[first : first + len(queries)]
        part = Decisions(scores[:, 0].copy(), winner, np.ones_like(winner), winner == asked)
        unclear = np.flatnonzero(~(scores[:, 0] > scores[:, 1]))
        if len(unclear):
            again = gallery.score_blocks(queries[torch.from_numpy(unclear).to(queries.device)], "max")
            for values, settled in zip(part, decide(again, asked[unclear]), strict=True):
                values[unclear] = settled
        parts.append(part)
        first += len(queries)
    return Decisions(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def with_unknown(labels: Array, rejected: Array, unknown: Any) -> Array:
    """`labels` with `unknown` where rejected; an object array where the two have no common dtype."""
    fill = np.asarray(unknown)
    if fill.ndim or label_kind(fill) != label_kind(labels):
        labels, fill = labels.astype(object), np.array(None, dtype=object)
        fill[()] = unknown
    return np.where(rejected, fill, labels)
