"""Forms that we constructed: what a skilled torch user could write, kept here for review.

They are nobody's product, so their ratios stand in a column of their own. Batches of the batch-hard rows hold
4 of every class, and the grouped forms may rely on that. Each mines without gradients and gathers the chosen
pairs, so that its backward pass is O(N D).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from siamese_fast.benchmarking.contender import Call, Contender, Inputs
from siamese_fast.benchmarking.ours import MARGIN

PER_CLASS = 4
BLOCK = 512

Mine = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def compiled(form: Contender) -> Contender:
    """The same form under torch.compile, one graph for the row's size."""

    def build(given: Inputs) -> Call:
        call: Call = torch.compile(form.build(given), fullgraph=True, dynamic=False)
        return call

    return Contender(
        f"torch.compile({form.name})",
        form.column,
        build,
        whole=form.whole,
        compiled=True,
        needs=form.needs,
        answer=form.answer,
    )


def gathered_loss(x: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    to_positive = torch.linalg.vector_norm(x - x[positive], dim=1)
    to_negative = torch.linalg.vector_norm(x - x[negative], dim=1)
    loss: Tensor = (to_positive - to_negative + MARGIN).relu().mean()
    return loss


def _batch_hard(name: str, mine: Mine, *libraries: str, bytes_a_pair: int = 0) -> Contender:
    def build(given: Inputs) -> Call:
        x, labels = given["x"], given["labels"]

        def call() -> Tensor:
            with torch.no_grad():
                positive, negative = mine(x.detach(), labels)
            return gathered_loss(x, positive, negative)

        return call

    return Contender(name, "constructed", build, libraries, needs=lambda size: bytes_a_pair * size["N"] ** 2)


def whole() -> Contender:
    """Squared distances [N, N] by a matrix product, masked, arg-extremes."""

    def mine(x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return _masked_extremes(x, x.square().sum(1), x, labels, labels)

    return _batch_hard("mine, gather", mine, bytes_a_pair=24)


def chunked() -> Contender:
    """The same on blocks of rows, which stay in the cache."""

    def mine(x: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        norms = x.square().sum(1)
        parts = [
            _masked_extremes(x, norms, rows, labels, own)
            for rows, own in zip(x.split(BLOCK), labels.split(BLOCK), strict=True)
        ]
        positive, negative = zip(*parts, strict=True)
        return torch.cat(positive), torch.cat(negative)

    return _batch_hard("mine, gather (chunked)", mine)


def _masked_extremes(
    x: Tensor, norms: Tensor, rows: Tensor, labels: Tensor, own: Tensor
) -> tuple[Tensor, Tensor]:
    scores = torch.addmm(norms, rows, x.T, alpha=-2)
    same = own[:, None] == labels[None]
    return scores.masked_fill(~same, -torch.inf).argmax(1), scores.masked_fill(same, torch.inf).argmin(1)


def grouped() -> Contender:
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

    return _batch_hard("sorted classes, gather (chunked)", mine)


def faiss_negatives() -> Contender:
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

    return _batch_hard("faiss, k = class size + 1, gather", mine, "faiss-cpu")


def numba_scan() -> Contender:
    """A product a block, then one fused pass over it in numba for both extremes."""

    def build(given: Inputs) -> Call:
        scan = importlib.import_module("siamese_fast.benchmarking.forms_numba").extremes
        x, labels = given["x"], given["labels"]
        classes = labels.numpy()

        def call() -> Tensor:
            rows = x.detach()
            half_norms, columns = -0.5 * rows.square().sum(1), rows.T.contiguous()
            positive, negative = torch.empty_like(labels), torch.empty_like(labels)
            for start in range(0, len(rows), BLOCK):
                scores = torch.addmm(half_norms, rows[start : start + BLOCK], columns)
                scan(scores.numpy(), classes, start, positive.numpy(), negative.numpy())
            return gathered_loss(x, positive, negative)

        return call

    return Contender("numba scan, gather (chunked)", "constructed", build, ("numba",))


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


def koch_broadcast() -> Contender:
    """The formula over [Q, S, D], which torch.compile fuses into its reduction."""

    def build(given: Inputs) -> Call:
        q, s, weight, bias = (given[name] for name in ("q", "s", "weight", "bias"))
        return lambda: ((q[:, None] - s[None]).abs() * weight).sum(2) + bias

    return Contender("broadcast", "constructed", build)


def koch_broadcast_out() -> Contender:
    """The same into a tensor that the caller reuses."""

    def build(given: Inputs) -> Call:
        q, s, weight, bias = (given[name] for name in ("q", "s", "weight", "bias"))
        out = torch.empty(len(q), len(s))
        return lambda: out.copy_(((q[:, None] - s[None]).abs() * weight).sum(2) + bias)

    return Contender("broadcast, out=", "constructed", build)


def koch_numba() -> Contender:
    """Forward and all gradients in two numba loops."""

    def build(given: Inputs) -> Call:
        numba_forms = importlib.import_module("siamese_fast.benchmarking.forms_numba")
        q, s, weight = (given[name].detach().numpy() for name in ("q", "s", "weight"))
        bias = given["bias"].item()
        generator = torch.Generator().manual_seed(0)
        upstream = torch.randn(len(q), len(s), generator=generator)
        grad = upstream.numpy()

        def call() -> tuple[Tensor, ...]:
            logits = numba_forms.koch_forward(q, s, weight, bias)
            found = numba_forms.koch_backward(grad, q, s, weight)
            return (*map(torch.from_numpy, (logits, *found)), upstream.sum())

        return call

    return Contender("numba", "constructed", build, ("numba",), whole=True, compiled=True)


def pairs_bce() -> Contender:
    """The formula as it stands."""

    def build(given: Inputs) -> Call:
        h1, h2, weight, bias = (given[name] for name in ("h1", "h2", "weight", "bias"))
        target = given["target"].to(h1.dtype)
        return lambda: F.binary_cross_entropy_with_logits(((h1 - h2).abs() * weight).sum(1) + bias, target)

    return Contender("plain torch", "constructed", build)


def pairs_bce_grad_out() -> Contender:
    """Loss and gradients by their formulas, into tensors that the caller reuses."""

    def build(given: Inputs) -> Call:
        h1, h2, weight, bias = (given[name].detach() for name in ("h1", "h2", "weight", "bias"))
        target = given["target"].to(h1.dtype)
        grad1, grad2 = torch.empty_like(h1), torch.empty_like(h2)

        def call() -> tuple[Tensor, ...]:
            difference = h1 - h2
            logits = (difference.abs() * weight).sum(1) + bias
            residual = (logits.sigmoid() - target) / len(h1)
            slope = residual[:, None] * weight * difference.sign()
            of_weight = (residual[:, None] * difference.abs()).sum(0)
            loss = F.binary_cross_entropy_with_logits(logits, target)
            return loss, grad1.copy_(slope), grad2.copy_(-slope), of_weight, residual.sum()

        return call

    return Contender("formulas, out=", "constructed", build, whole=True)


def class_maximum() -> Contender:
    """All scores [Q, S], then the best of each class; supports sorted in advance, classes of one size."""

    def build(given: Inputs) -> Call:
        q, s = given["q"], given["s"][given["class_index"].argsort(stable=True)]
        num_classes = int(given["class_index"].max()) + 1
        half_norms, columns = -0.5 * s.square().sum(1), s.T.contiguous()

        def call() -> Tensor:
            scores = torch.addmm(half_norms, q, columns).view(len(q), num_classes, -1).amax(2)
            return 2 * scores - q.square().sum(1, keepdim=True)

        return call

    return Contender(
        "mm, then amax of each class", "constructed", build, needs=lambda size: 4 * size["Q"] * size["S"]
    )
