"""FaceNet's semi-hard negatives: for an anchor a and each positive p of it

    n(a, p) = the nearest negative farther than p, or the farthest negative where none is farther
    loss = sum over (a, p) of max(0, d(a, p) - d(a, n(a, p)) + margin) / number of (a, p)

The library sorts the [N, N] distances and keeps several matrices of that size for the backward pass. Here the
distances of a block of rows are made, used and made again for its backward pass: O(block N) memory.

Source: Schroff, Kalenichenko, Philbin, "FaceNet", 2015.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from siamese_fast import ops
from siamese_fast.ops._metrics import row_blocks


def semi_hard_triplet_loss(x: Tensor, labels: Tensor, margin: float, metric: str) -> Tensor:
    """The loss of embeddings [N, D] of at least two classes, labels [N]; 0 where no anchor has a positive."""
    sizes = torch.unique(labels, return_counts=True)[1]
    pairs = (sizes * (sizes - 1)).sum().clamp_min(1)
    sums = [
        checkpoint(_block, x, labels, rows, margin, metric, use_reentrant=False, preserve_rng_state=False)
        for rows in row_blocks(x.shape[0], x.shape[0])
    ]
    loss: Tensor = torch.stack(sums).sum() / pairs
    return loss


def _block(x: Tensor, labels: Tensor, rows: slice, margin: float, metric: str) -> Tensor:
    """The sum over the pairs of some anchors."""
    distances = ops.distance_matrix(x[rows], x, metric)
    same = labels[rows, None] == labels
    positive = same.clone()
    positive.diagonal(rows.start).fill_(False)
    most = int(positive.sum(1).max())
    found, columns = positive.to(torch.uint8).topk(most, dim=1)
    to_positive = distances.gather(1, columns)
    negatives = _negatives(distances.detach(), same, to_positive.detach())
    violation = to_positive - distances.gather(1, negatives) + margin
    return torch.where(found > 0, violation.clamp_min(0), 0.0).sum()


def _negatives(distances: Tensor, same: Tensor, to_positive: Tensor) -> Tensor:
    """The columns of n(a, p) for the distances to some positives of each row, [n, K]."""
    ascending, order = distances.masked_fill(same, torch.inf).sort(dim=1, stable=True)
    place = torch.searchsorted(ascending, to_positive, right=True).clamp_max(distances.shape[1] - 1)
    farthest = distances.masked_fill(same, -torch.inf).argmax(1, keepdim=True)
    return torch.where(ascending.gather(1, place).isfinite(), order.gather(1, place), farthest)
