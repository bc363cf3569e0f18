"""The edges of what an operation is given: labels of every kind, ties, NaN, infinities, overflow, nothing at
all.
"""

from __future__ import annotations

import pytest
import torch
from rooms import DTYPES, dtype_name
from torch import Tensor

from siamese_fast import (
    batch_hard_triplet_loss,
    class_scores,
    distance,
    distance_matrix,
    hardest_pairs,
    l1_similarity,
    l1_similarity_bce,
    l1_similarity_matrix,
    nearest_support,
    prepare_support,
    similarity_matrix,
    triplet_loss,
)
from siamese_fast.testing import Draw

pytestmark = pytest.mark.sanitize

METRICS = ("euclidean", "sqeuclidean", "cosine", "dot", "manhattan")
NAN, INF = float("nan"), float("inf")
INT64 = torch.iinfo(torch.int64)


@pytest.mark.parametrize("metric", METRICS)
def test_one_class_has_no_negatives_and_distinct_labels_no_positives(metric: str, room: str) -> None:
    x = Draw(torch.float32).rows(40, 9)
    positive, negative = hardest_pairs(x, torch.zeros(40, dtype=torch.int64), metric=metric)
    assert bool((negative == -1).all())
    assert bool((positive >= 0).all())
    assert bool((positive != torch.arange(40)).all())
    positive, negative = hardest_pairs(x, torch.arange(40), metric=metric)
    assert bool((positive == -1).all())
    assert bool((negative >= 0).all())
    assert bool((negative != torch.arange(40)).all())


@pytest.mark.parametrize("rows", [0, 1, 2])
def test_tiny_batches(rows: int, room: str) -> None:
    x = torch.randn(rows, 3, requires_grad=True)
    positive, negative = hardest_pairs(x, torch.arange(rows))
    assert positive.tolist() == [-1] * rows
    assert negative.tolist() == {0: [], 1: [-1], 2: [1, 0]}[rows]
    loss = batch_hard_triplet_loss(x, torch.arange(rows))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(x.grad, torch.zeros_like(x))


@pytest.mark.parametrize("metric", METRICS)
def test_labels_of_every_dtype_and_value(metric: str, room: str) -> None:
    draw = Draw(torch.float32)
    classes = draw.labels(60, 2)
    x = draw.rows(60, 7, classes)
    expected = hardest_pairs(x, classes, metric=metric)
    forms = [classes.to(dtype) for dtype in (torch.bool, torch.int8, torch.uint8, torch.int16, torch.int32)]
    forms += [
        torch.where(classes == 0, low, high)
        for low, high in ((INT64.min, INT64.max), (-1, -2), (0, 1 << 32), (7, -7))
    ]
    for labels in forms:
        found = hardest_pairs(x, labels, metric=metric)
        assert torch.equal(found[0], expected[0])
        assert torch.equal(found[1], expected[1])


def test_renaming_classes_changes_nothing(room: str) -> None:
    draw = Draw(torch.float32)
    labels = draw.labels(200, 23)
    x = draw.rows(200, 9, labels)
    names = torch.randint(INT64.min, INT64.max, (23,), generator=draw.generator)
    expected, found = hardest_pairs(x, labels), hardest_pairs(x, names[labels])
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


@pytest.mark.parametrize("metric", ["sqeuclidean", "dot", "manhattan"])
def test_ties_go_to_the_lowest_index(metric: str, room: str) -> None:
    """All rows equal, in more rows than any tile has."""
    rows = 300
    x, labels = torch.full((rows, 5), 2.0), torch.arange(rows) % 3
    positive, negative = hardest_pairs(x, labels, metric=metric)
    assert positive.tolist() == [i % 3 if i >= 3 else i + 3 for i in range(rows)]
    assert negative.tolist() == [1 if i % 3 == 0 else 0 for i in range(rows)]
    scores, index = nearest_support(x[:4], x, 6, metric=metric)
    assert index.tolist() == [list(range(6))] * 4
    assert bool((scores == scores[0, 0]).all())


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
@pytest.mark.parametrize("metric", METRICS)
def test_identical_rows_are_at_distance_zero(metric: str, dtype: torch.dtype, room: str) -> None:
    """Exactly, far from the origin too, and with gradient 0."""
    if metric == "dot":
        return
    x = (Draw(dtype).rows(12, 130) + 50).requires_grad_()
    y = x.detach().clone().requires_grad_()
    for distances in (distance(x, y, metric), distance_matrix(x, y, metric).diagonal()):
        assert torch.equal(distances.detach(), torch.zeros_like(distances))
        for gradient in torch.autograd.grad(distances.sum(), (x, y)):
            assert torch.equal(gradient, torch.zeros_like(gradient))
    scores, index = nearest_support(x, y, metric=metric)
    assert index[:, 0].tolist() == list(range(12))
    assert bool((scores == (1 if metric == "cosine" else 0)).all())


def test_zero_rows_have_cosine_zero_and_no_gradient(room: str) -> None:
    x = torch.zeros(2, 4, requires_grad=True)
    y = torch.tensor([[1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 0.0, 0.0]], requires_grad=True)
    scores = similarity_matrix(x, y, "cosine")
    scores.sum().backward()
    eps = torch.finfo(torch.float32).eps
    assert bool((scores.abs() <= eps).all())
    assert torch.equal(x.grad, torch.zeros_like(x))
    assert torch.equal(y.grad[1], torch.zeros(4))
    assert bool((y.grad[0].abs() <= eps).all())
    assert bool(((distance(x, y, "cosine") - 1).abs() <= eps).all())


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
@pytest.mark.parametrize("metric", METRICS)
def test_a_nan_row_harms_only_itself(metric: str, dtype: torch.dtype, room: str) -> None:
    """A NaN anchor gets no pair, a NaN loss and a NaN gradient; as a candidate it is as good as absent."""
    draw = Draw(dtype)
    labels = draw.labels(70, 6)
    x = draw.rows(70, 19, labels)
    bad = torch.zeros(70, dtype=torch.bool)
    bad[[0, 31, 69]] = True
    x[bad, torch.tensor([0, 7, 18])] = NAN
    positive, negative = hardest_pairs(x, labels, metric=metric)
    assert bool((positive[bad] == -1).all())
    assert bool((negative[bad] == -1).all())
    good = torch.nonzero(~bad)[:, 0]
    for found, alone in zip(
        (positive, negative), hardest_pairs(x[good], labels[good], metric=metric), strict=True
    ):
        assert torch.equal(found[good], torch.where(alone >= 0, good[alone.clamp_min(0)], -1))
    x.requires_grad_()
    losses = batch_hard_triplet_loss(x, labels, metric=metric, reduction="none")
    assert torch.equal(losses.isnan(), bad)
    (gradient,) = torch.autograd.grad(losses.sum(), x)
    assert torch.equal(gradient.isnan().any(1), bad)
    assert batch_hard_triplet_loss(x, labels, metric=metric).isnan()


@pytest.mark.parametrize("metric", [*METRICS, "koch"])
def test_a_nan_support_is_never_chosen(metric: str, room: str) -> None:
    draw = Draw(torch.float32)
    q, s, weight = draw.rows(11, 19), draw.rows(40, 19), draw.weight(19)
    s[[0, 17, 39], 3] = NAN
    q[4, 5] = NAN
    head = {"weight": weight} if metric == "koch" else {"metric": metric}
    for supports in (s, prepare_support(s, **head)):
        options = head if isinstance(supports, Tensor) else {}
        scores, index = nearest_support(q, supports, 40, **options)
        for row in range(11):
            chosen = [i for i in index[row].tolist() if i >= 0]
            assert len(chosen) == (0 if row == 4 else 37)
            assert not {0, 17, 39} & set(chosen)
        assert bool((scores[index < 0] == -INF).all())
        assert not scores.isnan().any()
        best = class_scores(q, supports, torch.arange(40) % 4, 4, **options)
        assert not best.isnan().any()
        assert bool((best[4] == -INF).all())


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "manhattan"])
def test_infinite_rows(metric: str, room: str) -> None:
    """An infinite row is infinitely far: the farthest of its class, the nearest of another only when all are;
    never a crash.
    """
    draw = Draw(torch.float32)
    labels = torch.arange(40) % 4
    x = draw.rows(40, 17)
    x[9, 2] = INF
    x[22, 16] = -INF
    positive, negative = hardest_pairs(x, labels, metric=metric)
    for i in range(40):
        same = [j for j in range(40) if labels[j] == labels[i] and j != i]
        far = {9: 9, 22: 22}
        if i in far:
            assert int(positive[i]) == same[0]
            assert int(negative[i]) == next(j for j in range(40) if labels[j] != labels[i])
        elif 9 in same or 22 in same:
            assert int(positive[i]) == (9 if 9 in same else 22)
        if i not in far:
            assert int(negative[i]) not in far
    scores, index = nearest_support(x[:9], x, 40, metric=metric)
    assert index[:, -2:].sort(1).values.tolist() == [[9, 22]] * 9
    assert bool((scores[:, -2:] == -INF).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=dtype_name)
@pytest.mark.parametrize("metric", ["euclidean", "manhattan"])
@pytest.mark.parametrize("mixed", [False, True])
def test_rows_whose_square_overflows_are_mined_by_differences(
    metric: str, dtype: torch.dtype, mixed: bool, room: str
) -> None:
    """|x|^2 is infinite and |x - y|^2 is not; with rows of ordinary size among them, infinitely far by that
    measure.
    """
    draw = Draw(torch.float64)
    labels = draw.labels(50, 5)
    x = (4 + 0.1 * draw.rows(50, 33)) * 2.0 ** (509 if dtype == torch.float64 else 61)
    if mixed:
        x[torch.randperm(50, generator=draw.generator)[:20]] *= 2.0**-61
    x = x.to(dtype)
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    wide = x.to(compute)
    assert bool(wide.square().sum(1).isinf().any())
    power = 1.0 if metric == "manhattan" else 2.0
    distances = torch.cdist(wide, wide, p=power, compute_mode="donot_use_mm_for_euclid_dist")
    same = labels[:, None] == labels
    farthest = distances.masked_fill(~same | torch.eye(50, dtype=torch.bool), -INF).amax(1)
    nearest = distances.masked_fill(same, INF).amin(1)
    assert bool(nearest.isfinite().all())
    for index, extreme in zip(hardest_pairs(x, labels, metric=metric), (farthest, nearest), strict=True):
        torch.testing.assert_close(distances.gather(1, index[:, None])[:, 0], extreme)


def test_half_precision_extremes(room: str) -> None:
    """The largest and smallest numbers of fp16: distances do not overflow in its range, subnormals count."""
    big, tiny = 65504.0, 2.0**-24
    x = torch.tensor([[big, -big, tiny], [0.0, 0.0, 0.0]], dtype=torch.float16)
    y = torch.tensor([[-big, big, 0.0], [tiny, 0.0, -3 * tiny]], dtype=torch.float16)
    expected = torch.tensor([2 * big * 2**0.5, 10**0.5 * tiny])
    torch.testing.assert_close(distance(x, y), expected)
    torch.testing.assert_close(distance_matrix(x, y).diagonal(), expected)
    torch.testing.assert_close(distance(x, y, "manhattan"), torch.tensor([4 * big, 4 * tiny]))
    weight = torch.tensor([1.0, 1.0, 2.0**24])
    torch.testing.assert_close(
        l1_similarity(x, y, weight), torch.tensor([4 * big + 1, 4 * 1.0 - 3 + 3.0 - 1 + tiny])
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=dtype_name)
def test_every_half_number_converts(dtype: torch.dtype, native_room: str) -> None:
    """All 65536 patterns, as embeddings and as gradients: NaN, infinities and subnormals included."""
    pattern = torch.arange(-32768, 32768).to(torch.int16).view(dtype).reshape(-1, 64)
    zeros, ones = torch.zeros_like(pattern), torch.ones(64)
    for column in range(0, 64, 9):
        weight = torch.zeros(64)
        weight[column] = 1.0
        kept = pattern.clone()
        kept[:, torch.arange(64) != column] = 0
        expected = kept[:, column].float().abs()
        found = l1_similarity(kept, zeros, ones * weight)
        torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    values = torch.randn(64, 256).mul(2.0 ** torch.randint(-30, 16, (64, 256))).requires_grad_()
    h1 = torch.full((64, 256), 1.0, dtype=dtype, requires_grad=True)
    upstream = values.detach()[:, 0].contiguous()
    (gradient,) = torch.autograd.grad(l1_similarity(h1, torch.zeros_like(h1), torch.ones(256)), h1, upstream)
    assert torch.equal(gradient, upstream[:, None].expand(64, 256).to(dtype))


@pytest.mark.parametrize("metric", METRICS)
def test_a_separate_set_excludes_oneself_only_when_told(metric: str, room: str) -> None:
    draw = Draw(torch.float64)
    labels = draw.labels(60, 5)
    x = draw.rows(60, 8, labels)
    itself = hardest_pairs(x, labels, metric=metric)
    told = hardest_pairs(x, labels, metric=metric, ref=x, ref_labels=labels, self_index=torch.arange(60))
    for found, expected in zip(told, itself, strict=True):
        assert torch.equal(found, expected)
    alone = torch.arange(60)
    positive, _ = hardest_pairs(x, alone, metric=metric, ref=x, ref_labels=alone)
    assert torch.equal(positive, alone)
    positive, _ = hardest_pairs(x, alone, metric=metric, ref=x, ref_labels=alone, self_index=alone)
    assert bool((positive == -1).all())
    unknown = torch.where(alone % 2 == 0, -1, alone)
    positive, _ = hardest_pairs(x, alone, metric=metric, ref=x, ref_labels=alone, self_index=unknown)
    assert torch.equal(positive, torch.where(alone % 2 == 0, alone, -1))


def test_an_empty_reference_set(room: str) -> None:
    x = torch.randn(5, 4, requires_grad=True)
    ref = torch.zeros(0, 4, requires_grad=True)
    none = torch.zeros(0, dtype=torch.int64)
    positive, negative = hardest_pairs(x, torch.arange(5), ref=ref, ref_labels=none)
    assert positive.tolist() == negative.tolist() == [-1] * 5
    loss = batch_hard_triplet_loss(x, torch.arange(5), ref=ref, ref_labels=none)
    gradients = torch.autograd.grad(loss, (x, ref))
    assert loss.item() == 0
    assert torch.equal(gradients[0], torch.zeros(5, 4))
    scores, index = nearest_support(x, ref, 3)
    assert index.tolist() == [[-1] * 3] * 5
    assert bool((scores == -INF).all())
    assert bool((class_scores(x, ref, none, 2) == -INF).all())


def test_no_triplet_modes(room: str) -> None:
    """Rows 0 and 1 are a class, row 2 is alone: it lacks a positive."""
    x = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]], requires_grad=True)
    labels = torch.tensor([0, 0, 1])
    skip, valid = batch_hard_triplet_loss(x, labels, 0.5, reduction="none", return_valid=True)
    torch.testing.assert_close(skip, torch.tensor([5 - 1 + 0.5, 5 - 18**0.5 + 0.5, 0.0]))
    assert valid.tolist() == [True, True, False]
    mean = batch_hard_triplet_loss(x, labels, 0.5)
    torch.testing.assert_close(mean, skip[:2].mean())
    zero, valid = batch_hard_triplet_loss(
        x, labels, 1.5, reduction="none", no_triplet="zero_positive", return_valid=True
    )
    torch.testing.assert_close(zero, torch.tensor([5 - 1 + 1.5, 5 - 18**0.5 + 1.5, 0 - 1 + 1.5]))
    assert valid.tolist() == [True, True, True]
    (gradient,) = torch.autograd.grad(zero[2], x)
    torch.testing.assert_close(gradient, torch.tensor([[0.0, 1.0], [0.0, 0.0], [0.0, -1.0]]))
    with pytest.raises(ValueError, match="1 of 3 anchors"):
        batch_hard_triplet_loss(x, labels, no_triplet="error")
    assert batch_hard_triplet_loss(x[:2], torch.tensor([0, 0]), no_triplet="zero_positive").item() == 0


def test_dot_violation_is_of_similarities(room: str) -> None:
    a, p, n = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 1.0]]), torch.tensor([[1.0, 1.5]])
    assert triplet_loss(a, p, n, 2.0, metric="dot").item() == 4.0 - 5.0 + 2.0


def test_empty_pairs(room: str) -> None:
    h = torch.zeros(0, 3, requires_grad=True)
    weight = torch.ones(3, requires_grad=True)
    for reduction in ("mean", "sum"):
        loss = l1_similarity_bce(h, h.detach(), weight, None, torch.zeros(0), reduction)
        gradients = torch.autograd.grad(loss, (h, weight))
        assert loss.item() == 0
        assert torch.equal(gradients[1], torch.zeros(3))
    assert l1_similarity(h, h, weight).shape == (0,)
    assert l1_similarity_matrix(h, torch.ones(4, 3), weight).shape == (0, 4)


def test_more_neighbours_than_supports(room: str) -> None:
    q, s = torch.zeros(2, 1), torch.tensor([[3.0], [-1.0]])
    scores, index = nearest_support(q, s, 5, metric="manhattan")
    assert index.tolist() == [[1, 0, -1, -1, -1]] * 2
    assert scores.tolist() == [[-1.0, -3.0, -INF, -INF, -INF]] * 2


def test_a_class_without_supports_scores_minus_infinity(room: str) -> None:
    q, s = torch.randn(3, 4), torch.randn(5, 4)
    for reduce in ("max", "mean", "prototype"):
        scores = class_scores(q, s, torch.tensor([0, 0, 3, 3, 3]), 5, reduce=reduce)
        assert scores.isinf().tolist() == [[False, True, True, False, True]] * 3
        assert bool((scores[:, [1, 2, 4]] == -INF).all())
