"""Which triplets count: semi-hard, ranked, soft margins over all, the distance swap, and what is said of
them.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import siamese_fast
from siamese_fast import (
    batch_all_triplet_loss,
    batch_hard_triplet_loss,
    hardest_pairs,
    ranked_pairs,
    ranked_triplet_loss,
    semi_hard_triplet_loss,
    triplet_loss,
)
from siamese_fast.testing import Draw

METRICS = ("euclidean", "sqeuclidean", "cosine", "dot")


def distances(x: Tensor, y: Tensor, metric: str) -> Tensor:
    if metric == "dot":
        return -x @ y.T
    if metric == "cosine":
        return 1 - nn.functional.normalize(x) @ nn.functional.normalize(y).T
    square = (x[:, None] - y).square().sum(2)
    return square if metric == "sqeuclidean" else torch.where(square > 0, square, 1.0).sqrt() * (square > 0)


def pairs(labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Anchors and positives of all such pairs, and all negatives of each anchor."""
    same = labels[:, None] == labels
    anchor, positive = (same & ~torch.eye(len(labels), dtype=torch.bool)).nonzero(as_tuple=True)
    return anchor, positive, ~same


def agree(found: Tensor, expected: Tensor, x: Tensor) -> None:
    torch.testing.assert_close(found, expected)
    got, want = (torch.autograd.grad(value, x, retain_graph=True)[0] for value in (found, expected))
    torch.testing.assert_close(got, want)


@pytest.mark.sanitize
@pytest.mark.parametrize("classes", [2, 3, 30, 400], ids=lambda count: f"{count} classes")
@pytest.mark.parametrize("metric", METRICS)
def test_semi_hard_is_the_formula_of_all_pairs(metric: str, classes: int, room: str) -> None:
    draw = Draw(torch.float64)
    labels = torch.arange(90) % classes
    x = draw.rows(90, 6).requires_grad_()
    far = distances(x, x, metric)
    anchor, positive, negatives = pairs(labels)
    d_ap, rivals, among = far[anchor, positive], far[anchor], negatives[anchor]
    farther = among & (rivals > d_ap[:, None])
    nearest = rivals.masked_fill(~farther, torch.inf).amin(1)
    farthest = rivals.masked_fill(~among, -torch.inf).amax(1)
    hinges = (d_ap - torch.where(farther.any(1), nearest, farthest) + 0.4).relu()
    for reduction, count in (("mean", len(d_ap)), ("mean_nonzero", int((hinges > 0).sum())), ("sum", 1)):
        loss = semi_hard_triplet_loss(x, labels, 0.4, metric=metric, reduction=reduction)
        agree(loss, hinges.sum() / max(1, count), x)


@pytest.mark.sanitize
@pytest.mark.parametrize("classes", [2, 30], ids=lambda count: f"{count} classes")
def test_semi_hard_ties_go_to_the_first_row(classes: int, room: str) -> None:
    """Integers tie: the gradient tells which negative was taken."""
    draw = Draw(torch.float64, "integers")
    labels = torch.arange(70) % classes
    x = draw.rows(70, 2)
    far = distances(x, x, "sqeuclidean")
    expected = torch.zeros_like(x)
    for a, p in zip(*(index.tolist() for index in pairs(labels)[:2]), strict=True):
        rivals = [n for n in range(70) if labels[n] != labels[a]]
        farther = [n for n in rivals if far[a, n] > far[a, p]]
        n = min(farther, key=far[a].__getitem__) if farther else max(rivals, key=far[a].__getitem__)
        if far[a, p] - far[a, n] + 2.5 > 0:
            expected[a] += 2 * (x[n] - x[p])
            expected[p] += 2 * (x[p] - x[a])
            expected[n] += 2 * (x[a] - x[n])
    x.requires_grad_()
    loss = semi_hard_triplet_loss(x, labels, 2.5, metric="sqeuclidean", reduction="sum")
    assert torch.equal(torch.autograd.grad(loss, x)[0], expected)


def test_semi_hard_never_takes_a_nan(room: str) -> None:
    x = torch.randn(40, 5, dtype=torch.float64)
    labels = torch.arange(40) % 4
    x[3] = float("nan")
    each = semi_hard_triplet_loss(x, labels, reduction="none")
    others = semi_hard_triplet_loss(x, labels, reduction="none", ignore_label=3)
    assert each[labels == 3].isnan().all()
    assert each[labels != 3].isfinite().all() and others[labels != 3].isfinite().all()


@pytest.mark.sanitize
@pytest.mark.parametrize("classes", [2, 30], ids=lambda count: f"{count} classes")
@pytest.mark.parametrize("margin", [None, 0.3])
def test_soft_margins_of_all_triplets(margin: float | None, classes: int, room: str) -> None:
    x = Draw(torch.float64).rows(90, 6).requires_grad_()
    anchor, positive, negatives = pairs(labels := torch.arange(90) % classes)
    far = distances(x, x, "euclidean")
    each = nn.functional.softplus(far[anchor, positive, None] - far[anchor] + (margin or 0.0))[
        negatives[anchor]
    ]
    for reduction in ("mean", "mean_nonzero"):
        agree(batch_all_triplet_loss(x, labels, margin, smooth=True, reduction=reduction), each.mean(), x)


@pytest.mark.sanitize
@pytest.mark.parametrize("kind", ["integers", "normal"])
@pytest.mark.parametrize("separate", [False, True], ids=("batch", "separate set"))
def test_ranked_pairs_are_sorted_rows(kind: str, separate: bool, room: str) -> None:
    draw = Draw(torch.float64, kind)
    labels, ref_labels = draw.labels(300, 40), draw.labels(280, 40)
    x, ref = draw.rows(300, 2), draw.rows(280, 2)
    given = {"ref": ref, "ref_labels": ref_labels} if separate else {}
    far = distances(x, ref if separate else x, "sqeuclidean")
    same = labels[:, None] == (ref_labels if separate else labels)
    for positive, negative in (("hardest", "hardest"), ("easiest", "semi_hard"), ("hardest", "semi_hard")):
        found = ranked_pairs(
            x,
            labels,
            positive=positive,
            negative=negative,
            positives=3,
            negatives=5,
            metric="sqeuclidean",
            **given,
        )
        for i in range(0, 300, 7):
            mine = [j for j in range(far.shape[1]) if same[i, j] and (separate or i != j)]
            mine.sort(key=far[i].__getitem__, reverse=positive == "hardest")
            limit = float("-inf") if negative == "hardest" else far[i, mine[0]] if mine else float("inf")
            rest = [j for j in range(far.shape[1]) if not same[i, j] and far[i, j] > limit]
            rest.sort(key=far[i].__getitem__)
            assert [j for j in found[0][i].tolist() if j >= 0] == mine[:3]
            assert [j for j in found[1][i].tolist() if j >= 0] == rest[:5]


@pytest.mark.parametrize("metric", METRICS)
def test_one_of_each_is_the_hardest(metric: str, room: str) -> None:
    draw = Draw(torch.float64)
    x, labels = draw.rows(60, 5).requires_grad_(), draw.labels(60, 9)
    positive, negative = ranked_pairs(x, labels, metric=metric)
    for got, want in zip((positive, negative), hardest_pairs(x, labels, metric=metric), strict=True):
        assert torch.equal(got[:, 0], want)
    ranked = ranked_triplet_loss(x, labels, positive="hardest", negative="hardest", metric=metric)
    hard = batch_hard_triplet_loss(x, labels, metric=metric)
    assert isinstance(hard, Tensor)
    agree(ranked, hard, x)


@pytest.mark.parametrize("form", ["rows", "index", "ref"])
def test_the_swap_is_torchs(form: str, room: str) -> None:
    draw = Draw(torch.float64)
    x = draw.rows(50, 4).requires_grad_()
    a, p, n = (torch.randint(0, 50, (80,), generator=draw.generator) for _ in range(3))
    n = torch.where((n == p) | (n == a), (n + 1) % 50, n)
    p = torch.where(p == a, (p + 7) % 50, p)
    n = torch.where((n == p) | (n == a), (n + 3) % 50, n)
    expected = nn.TripletMarginLoss(0.5, eps=0.0, swap=True, reduction="sum")(x[a], x[p], x[n])
    if form == "rows":
        loss = triplet_loss(x[a], x[p], x[n], 0.5, swap=True, reduction="sum")
    else:
        ref = {} if form == "index" else {"ref": x * 1.0}
        loss = triplet_loss(a, p, n, 0.5, embeddings=x, swap=True, reduction="sum", **ref)
    agree(loss, expected, x)


def test_the_swap_of_batch_hard(room: str) -> None:
    draw = Draw(torch.float64)
    x, labels = draw.rows(60, 5).requires_grad_(), draw.labels(60, 9)
    p, n = hardest_pairs(x, labels)
    kept = (p >= 0) & (n >= 0)
    far = distances(x, x, "euclidean")
    a = torch.arange(60)[kept]
    p, n = p[kept], n[kept]
    expected = (far[a, p] - torch.minimum(far[a, n], far[p, n]) + 0.2).relu().mean()
    loss = batch_hard_triplet_loss(x, labels, swap=True)
    assert isinstance(loss, Tensor)
    agree(loss, expected, x)


def batch_hard_of(x: Tensor, labels: Tensor, far: Tensor) -> tuple[Tensor, Tensor]:
    _, _, negatives = pairs(labels)
    same = ~negatives & ~torch.eye(len(labels), dtype=torch.bool)
    valid = same.any(1) & negatives.any(1)
    return far.masked_fill(~same, -1).amax(1)[valid], far.masked_fill(~negatives, torch.inf).amin(1)[valid]


def batch_all_of(x: Tensor, labels: Tensor, far: Tensor) -> tuple[Tensor, Tensor]:
    anchor, positive, negatives = pairs(labels)
    several = far[anchor, positive, None].expand(-1, len(labels))[negatives[anchor]]
    return several, far[anchor][negatives[anchor]]


@pytest.mark.parametrize(
    ("name", "triplets"), [("BatchHardTripletLoss", batch_hard_of), ("BatchAllTripletLoss", batch_all_of)]
)
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_statistics_of_modules(
    name: str, triplets: Callable[..., tuple[Tensor, Tensor]], metric: str, room: str
) -> None:
    draw = Draw(torch.float64)
    x, labels = draw.rows(60, 5).requires_grad_(), draw.labels(60, 9)
    module = getattr(siamese_fast, name)(0.2, metric=metric)
    assert module.statistics == {}
    module.collect_statistics = True
    loss = module(x, labels)
    d_ap, d_an = triplets(x, labels, distances(x, x, metric))
    found = module.statistics
    assert int(found["triplets"]) == len(d_ap)
    torch.testing.assert_close(found["active"], (d_ap - d_an + 0.2 > 0).double().mean())
    assert not any(value.requires_grad for value in found.values())
    if name == "BatchHardTripletLoss":
        torch.testing.assert_close(found["d_ap"], d_ap.mean().detach())
        torch.testing.assert_close(found["d_an"], d_an.mean().detach())
        plain = batch_hard_triplet_loss(x, labels, metric=metric)
        torch.testing.assert_close(loss, plain)
    else:
        _, _, negatives = pairs(labels)
        same = ~negatives & ~torch.eye(60, dtype=torch.bool)
        far = distances(x, x, metric).detach()
        torch.testing.assert_close(found["d_ap"], far[same].mean())
        torch.testing.assert_close(found["d_an"], far[negatives].mean())


def test_spread_is_zero_at_collapse() -> None:
    module = siamese_fast.SemiHardTripletLoss()
    module.collect_statistics = True
    labels = torch.arange(8) % 2
    module(torch.ones(8, 3), labels)
    assert module.statistics["spread"] == 0 and module.statistics["active"] == 1
    module(torch.tensor([[1.0, 0], [-1, 0]]).repeat(4, 1), labels)
    torch.testing.assert_close(module.statistics["spread"], torch.tensor(1.0))
    module(torch.zeros(8, 3), labels)
    assert module.statistics["spread"] == 0


@pytest.mark.parametrize("name", ["BatchHardTripletLoss", "BatchAllTripletLoss", "SemiHardTripletLoss"])
def test_statistics_wait_for_nothing(name: str) -> None:
    """On the meta device no value is there to wait for."""
    module = getattr(siamese_fast, name)()
    module.collect_statistics = True
    module(torch.randn(8, 3, device="meta"), torch.zeros(8, dtype=torch.int64, device="meta"))
    assert all(value.device.type == "meta" for value in module.statistics.values())


def test_a_memory_is_a_set_of_earlier_rows() -> None:
    memory = siamese_fast.CrossBatchMemory(siamese_fast.NTXentLoss(), dim=4, size=20)
    seen, seen_labels = torch.empty(0, 4), torch.empty(0, dtype=torch.int64)
    for step in range(5):
        x, labels = torch.randn(7, 4, requires_grad=True), torch.arange(7) % 3 + step % 2
        seen = torch.cat([seen, x.detach()])[-20:]
        seen_labels = torch.cat([seen_labels, labels])[-20:]
        own = len(seen) - 7 + torch.arange(7)
        expected = siamese_fast.ntxent_loss(x, labels, ref=seen, ref_labels=seen_labels, self_index=own)
        agree(memory(x, labels), expected, x)
        fresh = siamese_fast.CrossBatchMemory(siamese_fast.NTXentLoss(), dim=4, size=20)
        fresh.load_state_dict(memory.state_dict())
        memory = fresh
    with pytest.raises(ValueError, match=r"embeddings must have shape \[N, 4\] with N <= 20, got \[21, 4\]"):
        memory(torch.randn(21, 4), torch.arange(21))
    with pytest.raises(ValueError, match="size must be positive, got 0"):
        siamese_fast.CrossBatchMemory(siamese_fast.NTXentLoss(), dim=4, size=0)


def test_batches_before_the_memory_moved_on_keep_their_gradients() -> None:
    memory = siamese_fast.CrossBatchMemory(siamese_fast.BatchHardTripletLoss(), dim=3, size=10)
    x, labels = torch.randn(6, 3, requires_grad=True), torch.arange(6) % 2
    first, second = memory(x, labels), memory(2 * x, labels)
    (first + second).backward()
    assert x.grad is not None and x.grad.isfinite().all()


def test_n_pair_is_a_cross_entropy_of_products() -> None:
    anchors, positives = torch.randn(9, 4), torch.randn(9, 4)
    expected = nn.functional.cross_entropy(anchors @ positives.T, torch.arange(9))
    torch.testing.assert_close(siamese_fast.NPairLoss()(anchors, positives), expected)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"positives": 0}, "positives must be a positive int, got 0"),
        ({"negatives": 1.5}, "negatives must be a positive int, got 1.5"),
        ({"positive": "hard"}, "positive must be one of 'hardest', 'easiest', got 'hard'"),
        ({"negative": "easiest"}, "negative must be one of 'hardest', 'semi_hard', got 'easiest'"),
        ({"metric": "manhattan"}, "metric must be one of 'euclidean'"),
    ],
)
def test_wrong_arguments(given: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ranked_triplet_loss(torch.randn(4, 3), torch.arange(4) % 2, **given)  # type: ignore[arg-type]
