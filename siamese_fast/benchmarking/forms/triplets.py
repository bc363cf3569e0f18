"""Batch-hard losses: each mines without gradients and gathers the chosen pairs, so that its backward pass is
O(N D). Batches hold `PER_CLASS` of every class, and the grouped forms rely on that.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from siamese_fast.benchmarking.contender import Call, Contender, Inputs
from siamese_fast.benchmarking.draws import PER_CLASS
from siamese_fast.benchmarking.ours import MARGIN, mined_distances
from siamese_fast.benchmarking.peers import lazy_tensor

BLOCK = 512
_PENALTY = 1e6
"""More than any squared distance of the rows."""

Mine = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def gathered_loss(x: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    to_positive = torch.linalg.vector_norm(x - x[positive], dim=1)
    to_negative = torch.linalg.vector_norm(x - x[negative], dim=1)
    loss: Tensor = (to_positive - to_negative + MARGIN).relu().mean()
    return loss


def _form(name: str, mine: Mine, gathers: bool, *libraries: str, bytes_a_pair: int = 0) -> Contender:
    """The loss by a miner, or with `gathers` false the mining alone."""

    def build(given: Inputs) -> Call:
        x, labels = given["x"], given["labels"]

        def call() -> Tensor:
            with torch.no_grad():
                positive, negative = mine(x.detach(), labels)
            return gathered_loss(x, positive, negative)

        return call if gathers else lambda: mine(x, labels)

    return Contender(
        f"{name}, gather" if gathers else name,
        "constructed",
        build,
        libraries,
        compiled="pykeops" in libraries,
        answer=None if gathers else mined_distances,
        needs=lambda size: bytes_a_pair * size["N"] ** 2,
    )


def whole(gathers: bool = True) -> Contender:
    """Squared distances [N, N] by a matrix product, masked, arg-extremes."""

    def mine(x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return _masked_extremes(x, x.square().sum(1), x, labels, labels)

    return _form("mine", mine, gathers, bytes_a_pair=24)


def chunked(gathers: bool = True) -> Contender:
    """The same on blocks of rows, which stay in the cache."""

    def mine(x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        norms = x.square().sum(1)
        parts = [
            _masked_extremes(x, norms, rows, labels, own)
            for rows, own in zip(x.split(BLOCK), labels.split(BLOCK), strict=True)
        ]
        positive, negative = zip(*parts, strict=True)
        return torch.cat(positive), torch.cat(negative)

    return _form("mine in chunks", mine, gathers)


def _masked_extremes(
    x: Tensor, norms: Tensor, rows: Tensor, labels: Tensor, own: Tensor
) -> tuple[Tensor, Tensor]:
    scores = torch.addmm(norms, rows, x.T, alpha=-2)
    same = own[:, None] == labels[None]
    return scores.masked_fill(~same, -torch.inf).argmax(1), scores.masked_fill(same, torch.inf).argmin(1)


def grouped(gathers: bool = True) -> Contender:
    """Sorted by class: positives by small batched products, negatives on blocks without looking at labels."""

    def mine(x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        order, rows = _sorted(x, labels)
        half_norms = -0.5 * rows.square().sum(1)
        columns = rows.T.contiguous()
        members = torch.arange(BLOCK) // PER_CLASS
        own_block = members[:, None] == members[None]
        found = []
        for start in range(0, len(rows), BLOCK):
            scores = torch.addmm(half_norms, rows[start : start + BLOCK], columns)
            here = len(scores)
            scores[:, start : start + here].masked_fill_(own_block[:here, :here], -torch.inf)
            found.append(scores.max(1).indices)
        return _unsorted(order, _positives(rows), torch.cat(found))

    return _form("mine sorted classes in chunks", mine, gathers)


def faiss_negatives(gathers: bool = True) -> Contender:
    """The nearest negative is among the class size + 1 nearest rows; positives as in `grouped`."""

    def mine(x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        faiss: Any = importlib.import_module("faiss")
        order, rows = _sorted(x, labels)
        index = faiss.IndexFlatL2(rows.shape[1])
        index.add(rows.numpy())
        near = torch.from_numpy(index.search(rows.numpy(), PER_CLASS + 1)[1])
        other = near // PER_CLASS != (torch.arange(len(rows)) // PER_CLASS)[:, None]
        first = other.to(torch.uint8).argmax(1, keepdim=True)
        return _unsorted(order, _positives(rows), near.gather(1, first).squeeze(1))

    return _form("faiss, k = class size + 1", mine, gathers, "faiss-cpu")


def numba_scan(gathers: bool = True) -> Contender:
    """A product a block, then one fused pass over it in numba for both extremes."""

    def mine(x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        scan = importlib.import_module("siamese_fast.benchmarking.forms.loops").extremes
        half_norms, columns = -0.5 * x.square().sum(1), x.T.contiguous()
        positive, negative = torch.empty_like(labels), torch.empty_like(labels)
        for start in range(0, len(x), BLOCK):
            scores = torch.addmm(half_norms, x[start : start + BLOCK], columns)
            scan(scores.numpy(), labels.numpy(), start, positive.numpy(), negative.numpy())
        return positive, negative

    return _form("numba scan in chunks", mine, gathers, "numba")


def keops_extremes(gathers: bool = True) -> Contender:
    """Two KeOps reductions over squared distances, with a penalty where labels differ, or agree."""

    def mine(x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        lazy = lazy_tensor()
        rows, columns = lazy(x[:, None, :]), lazy(x[None, :, :])
        classes = labels.to(x.dtype)
        apart = (lazy(classes[:, None, None]) - lazy(classes[None, :, None])).abs().clamp(0, 1)
        squares = ((rows - columns) ** 2).sum(-1)
        positive = (squares - _PENALTY * apart).argmax(dim=1)
        return positive.flatten(), (squares - _PENALTY * (apart - 1)).argmin(dim=1).flatten()

    return _form("KeOps", mine, gathers, "pykeops")


def _sorted(x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    order = labels.argsort()
    return order, x[order]


def _positives(rows: Tensor) -> Tensor:
    groups = rows.view(-1, PER_CLASS, rows.shape[1])
    norms = groups.square().sum(2)
    farthest = torch.baddbmm(norms[:, None], groups, groups.mT, alpha=-2).argmax(2)
    return (farthest + torch.arange(0, len(rows), PER_CLASS)[:, None]).flatten()


def _unsorted(order: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
    back = torch.empty_like(order)
    back[order] = torch.arange(len(order))
    return order[positive][back], order[negative][back]
