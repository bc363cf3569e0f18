"""Losses over all pairs and all triplets: what the suite over Cases does not say."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import siamese_fast
from siamese_fast import (
    batch_all_triplet_loss,
    batch_hard_triplet_loss,
    circle_loss,
    contrastive_loss,
    info_nce_loss,
    losses,
    multi_similarity_loss,
    ntxent_loss,
    prototypical_loss,
    semi_hard_triplet_loss,
    supcon_loss,
)
from siamese_fast.testing import Draw

LOSSES: dict[str, Callable[..., Tensor]] = {
    "ntxent": ntxent_loss,
    "supcon": supcon_loss,
    "contrastive": contrastive_loss,
    "multi_similarity": multi_similarity_loss,
    "circle": circle_loss,
    "batch_all": batch_all_triplet_loss,
    "semi_hard": semi_hard_triplet_loss,
}
NAN = float("nan")


@pytest.mark.sanitize
@pytest.mark.parametrize("name", LOSSES)
def test_batches_without_pairs_backpropagate_zeros(name: str, room: str) -> None:
    """No rows, one row; no positives leaves only what negatives cost by themselves."""
    for rows in (0, 1):
        x = torch.randn(rows, 3, requires_grad=True)
        for reduction in ("mean", "sum", "mean_nonzero", "none"):
            loss = LOSSES[name](x, torch.arange(rows), reduction=reduction)
            (gradient,) = torch.autograd.grad(loss.sum(), x)
            assert torch.equal(loss.detach(), torch.zeros_like(loss))
            assert torch.equal(gradient, torch.zeros_like(x))


@pytest.mark.sanitize
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("labels", [torch.zeros(50).long(), torch.arange(50)], ids=("one class", "distinct"))
def test_one_class_and_distinct_labels(name: str, labels: Tensor, room: str) -> None:
    x = torch.randn(50, 5, requires_grad=True)
    loss = LOSSES[name](x, labels)
    (gradient,) = torch.autograd.grad(loss, x)
    assert loss.isfinite() and gradient.isfinite().all()
    silent = name in ("ntxent", "circle", "batch_all", "semi_hard") or (name == "supcon" and labels[1] != 0)
    assert (loss == 0) == silent
    assert torch.equal(gradient, torch.zeros_like(x)) == silent


@pytest.mark.sanitize
@pytest.mark.parametrize("reduction", ["none", "mean", "sum", "mean_nonzero"])
@pytest.mark.parametrize("name", LOSSES)
def test_labels_of_every_dtype_and_value(name: str, reduction: str, room: str) -> None:
    draw = Draw(torch.float32)
    classes = draw.labels(60, 2)
    x = draw.rows(60, 7, classes)
    expected = LOSSES[name](x, classes, reduction=reduction)
    low, high = torch.iinfo(torch.int64).min, torch.iinfo(torch.int64).max
    for labels in (classes.bool(), classes.to(torch.uint8), torch.where(classes == 0, low, high)):
        torch.testing.assert_close(LOSSES[name](x, labels, reduction=reduction), expected)
        apart = {"ref": x, "ref_labels": labels, "self_index": torch.arange(60)}
        torch.testing.assert_close(LOSSES[name](x, labels, reduction=reduction, **apart), expected)


@pytest.mark.sanitize
@pytest.mark.parametrize("value", [NAN, float("inf"), 1e30])
@pytest.mark.parametrize("name", LOSSES)
def test_rows_past_all_bounds_never_crash(name: str, value: float, room: str) -> None:
    """A NaN makes every loss that it enters NaN; losses of other shapes than numbers are not promised."""
    x = torch.randn(40, 9)
    x[7, 3] = value
    x.requires_grad_()
    each = LOSSES[name](x, torch.arange(40) % 10, reduction="none")
    (gradient,) = torch.autograd.grad(each.sum(), x)
    assert each.shape == (40,) and gradient.shape == x.shape
    if value != value:
        assert each[7].isnan() and gradient[7].isnan().any()


@pytest.mark.parametrize("name", LOSSES)
def test_a_separate_set_of_the_batch_itself(name: str, room: str) -> None:
    """With every row told which row of the set it is, the loss is that of the batch, and gradients add up."""
    draw = Draw(torch.float64)
    labels = draw.labels(90, 20)
    x = draw.rows(90, 8, labels).requires_grad_()
    ref = x.detach().clone().requires_grad_()
    own = torch.arange(90)
    itself = LOSSES[name](x, labels)
    apart = LOSSES[name](x, labels, ref=ref, ref_labels=labels, self_index=own)
    torch.testing.assert_close(apart, itself)
    (expected,) = torch.autograd.grad(itself, x)
    torch.testing.assert_close(sum(torch.autograd.grad(apart, (x, ref))), expected)


@pytest.mark.parametrize("name", LOSSES)
def test_reductions_are_of_the_rows(name: str, room: str) -> None:
    draw = Draw(torch.float64)
    labels = draw.labels(80, 12)
    labels[3] = 99
    x = draw.rows(80, 8, labels)
    each = LOSSES[name](x, labels, reduction="none")
    torch.testing.assert_close(LOSSES[name](x, labels, reduction="sum"), each.sum())
    if name in ("supcon", "multi_similarity", "circle"):
        nonzero = LOSSES[name](x, labels, reduction="mean_nonzero")
        torch.testing.assert_close(nonzero, each.sum() / (each > 0).sum())
        counted = 80 if name == "multi_similarity" else 79
        torch.testing.assert_close(LOSSES[name](x, labels, reduction="mean"), each.sum() / counted)


@pytest.mark.parametrize("classes", [2, 3, 40], ids=lambda count: f"{count} classes")
@pytest.mark.parametrize("metric", ["euclidean", "dot"])
def test_batch_all_is_the_loop_over_all_triplets(classes: int, metric: str, room: str) -> None:
    """Classes of half the batch, where thresholds are sorted, and of a few rows, where they are compared."""
    draw = Draw(torch.float64)
    labels = torch.arange(90) % classes
    x = draw.rows(90, 6).requires_grad_()
    distances = -(x @ x.T) if metric == "dot" else (x[:, None] - x).square().sum(-1).add(1e-300).sqrt()
    same = labels[:, None] == labels
    anchor, positive = (same & ~torch.eye(90, dtype=torch.bool)).nonzero(as_tuple=True)
    violations = distances[anchor, positive, None] - distances[anchor] + 0.4
    hinges = torch.where(same[anchor], 0.0, violations.clamp_min(0))
    for reduction, count in (("mean_nonzero", (hinges > 0).sum()), ("mean", (~same[anchor]).sum())):
        loss = batch_all_triplet_loss(x, labels, 0.4, metric=metric, reduction=reduction)
        torch.testing.assert_close(loss, hinges.sum() / count)
        found, expected = (
            torch.autograd.grad(v, x, retain_graph=True)[0] for v in (loss, hinges.sum() / count)
        )
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("classes", [2, 3], ids=lambda count: f"{count} classes")
def test_batch_all_of_scores_close_together(classes: int, room: str) -> None:
    """Hinges of a millionth, from scores of 1 that float32 rounds to some 1e-7."""
    draw = Draw(torch.float32)
    labels = torch.arange(300) % classes
    x = 1 + 1e-3 * draw.rows(300, 8)
    x[:, 0] += 3e-3 * labels
    each = batch_all_triplet_loss(x, labels, 1e-6, metric="cosine", reduction="none")
    exact = batch_all_triplet_loss(x.double(), labels, 1e-6, metric="cosine", reduction="none")
    assert (each >= 0).all()
    torch.testing.assert_close(each.sum().double(), exact.sum(), rtol=0.05, atol=0)
    assert (each - exact).abs().max() < 0.1 * exact.mean()


@pytest.mark.parametrize("classes", [2, 30], ids=lambda count: f"{count} classes")
def test_a_nan_positive_makes_the_losses_of_its_class_nan(classes: int, room: str) -> None:
    """Of anchors with negatives: with those of its class alone as a separate set, no triplet holds it."""
    labels = torch.arange(90) % classes
    ref = torch.randn(90, 4)
    ref[labels != 1] += 100
    ref[31] = NAN
    x = ref.nan_to_num(0.0)
    given = {"ref": ref, "ref_labels": labels}
    assert batch_all_triplet_loss(x, labels, reduction="none", **given)[labels == 1].isnan().all()
    alone = {"ref": ref[labels == 1], "ref_labels": labels[labels == 1]}
    assert not batch_all_triplet_loss(x, labels, reduction="none", **alone)[labels == 1].isnan().any()


@pytest.mark.parametrize("classes", [2, 30], ids=lambda count: f"{count} classes")
def test_without_positives_a_nan_enters_no_triplet(classes: int, room: str) -> None:
    labels = torch.arange(90) % classes
    labels[5] = -1
    x = torch.randn(90, 4)
    x[31] = NAN
    assert batch_all_triplet_loss(x, labels, reduction="none")[5] == 0
    assert batch_all_triplet_loss(x, labels, margin=None, reduction="none")[5] == 0


def test_batch_all_takes_no_loss_from_negatives_at_minus_infinity(room: str) -> None:
    x = torch.randn(60, 4)
    x[::2] = 1e25
    labels = torch.arange(60) % 2
    each = batch_all_triplet_loss(x, labels, metric="sqeuclidean", reduction="none")
    assert torch.equal(each[1::2], torch.zeros(30))


def test_the_second_derivative_of_ntxent_without_negatives_is_zero(room: str) -> None:
    x = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    loss = ntxent_loss(x, torch.zeros(6).long(), reduction="sum")
    (first,) = torch.autograd.grad(loss, x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum() + first.sum(), x)
    assert torch.equal(second, torch.zeros_like(x))


def test_batch_all_by_rows_is_scaled_or_done_again(native_room: str) -> None:
    """One weight for all anchors takes the gradient that the forward pass found; others make it anew."""
    draw = Draw(torch.float64)
    labels = draw.labels(300, 60)
    x = draw.rows(300, 8, labels).requires_grad_()
    each = batch_all_triplet_loss(x, labels, reduction="none")
    ones = torch.ones(300, dtype=torch.float64)
    (uniform,) = torch.autograd.grad(each, x, ones, retain_graph=True)
    parts = torch.rand(300, dtype=torch.float64)
    (some,) = torch.autograd.grad(each, x, parts, retain_graph=True)
    (rest,) = torch.autograd.grad(each, x, 1 - parts)
    torch.testing.assert_close(some + rest, uniform)


def test_batch_all_without_gradients_returns_tensors_of_their_own(native_room: str) -> None:
    labels = torch.arange(8) % 2
    run = torch.ops.siamese_fast.triplet_sums
    outputs = run(torch.randn(8, 3), labels, None, None, None, 0.2, "euclidean", "all", "relu", False)
    assert len({id(output) for output in outputs}) == 5


def test_with_one_positive_and_one_negative_every_triplet_is_the_hardest(room: str) -> None:
    x = torch.randn(40, 5, dtype=torch.float64)
    labels, ref_labels = torch.arange(40) % 2, torch.tensor([0, 1])
    ref = torch.randn(2, 5, dtype=torch.float64)
    for reduction in ("none", "mean", "mean_nonzero"):
        every = batch_all_triplet_loss(x, labels, ref=ref, ref_labels=ref_labels, reduction=reduction)
        hardest = batch_hard_triplet_loss(x, labels, ref=ref, ref_labels=ref_labels, reduction=reduction)
        torch.testing.assert_close(every, hardest)


@pytest.mark.parametrize("metric", ["cosine", "dot"])
def test_info_nce_is_a_cross_entropy(metric: str, room: str) -> None:
    draw = Draw(torch.float64)
    q, keys = draw.rows(20, 6), draw.rows(26, 6)
    unit = torch.nn.functional.normalize if metric == "cosine" else lambda rows: rows
    logits = unit(q) @ unit(keys).T / 0.3
    for reduction in ("none", "mean", "sum"):
        expected = torch.nn.functional.cross_entropy(logits, torch.arange(20), reduction=reduction)
        torch.testing.assert_close(info_nce_loss(q, keys, 0.3, metric=metric, reduction=reduction), expected)


@pytest.mark.parametrize("metric", ["sqeuclidean", "euclidean"])
def test_prototypical_loss_is_an_episode(metric: str, room: str) -> None:
    draw = Draw(torch.float64)
    q, s = draw.rows(15, 6).requires_grad_(), draw.rows(12, 6).requires_grad_()
    labels, classes = torch.arange(15) % 4, torch.arange(12) % 4
    prototypes = torch.stack([s[classes == c].mean(0) for c in range(4)])
    distances = torch.cdist(q, prototypes, compute_mode="donot_use_mm_for_euclid_dist")
    logits = -(distances.square() if metric == "sqeuclidean" else distances)
    expected = torch.nn.functional.cross_entropy(logits, labels)
    loss = prototypical_loss(q, labels, s, classes, metric=metric)
    torch.testing.assert_close(loss, expected)
    for got, want in zip(
        torch.autograd.grad(loss, (q, s)), torch.autograd.grad(expected, (q, s)), strict=True
    ):
        torch.testing.assert_close(got, want)


def test_constant_weights_of_the_circle_loss_take_no_gradient(room: str) -> None:
    draw = Draw(torch.float64)
    labels = draw.labels(40, 6)
    x = draw.rows(40, 5).requires_grad_()
    unit = torch.nn.functional.normalize(x)
    same, off = labels[:, None] == labels, ~torch.eye(40, dtype=torch.bool)
    scores = unit @ unit.T
    weight = scores.detach()
    pull = (-8 * (1.4 - weight).clamp_min(0) * (scores - 0.6)).masked_fill(~(same & off), -torch.inf)
    push = (8 * (weight + 0.4).clamp_min(0) * (scores - 0.4)).masked_fill(same, -torch.inf)
    each = torch.nn.functional.softplus(pull.logsumexp(1) + push.logsumexp(1), threshold=60)
    keep = (same & off).any(1)
    expected = each[keep].mean()
    loss = circle_loss(x, labels, 0.4, 8.0)
    torch.testing.assert_close(loss, expected)
    for got, want in zip(torch.autograd.grad(loss, x), torch.autograd.grad(expected, x), strict=True):
        torch.testing.assert_close(got, want)


ERRORS = [
    (
        lambda x, y: ntxent_loss(x, y, 0.0),
        ValueError,
        "temperature must be a positive finite number, got 0.0",
    ),
    (
        lambda x, y: supcon_loss(x, y, NAN),
        ValueError,
        "temperature must be a positive finite number, got nan",
    ),
    (
        lambda x, y: ntxent_loss(x, y, 1e-39),
        ValueError,
        "temperature must lie in the range of float32, as must",
    ),
    (
        lambda x, y: batch_all_triplet_loss(x, y, 10**400),
        ValueError,
        "margin must lie in the range of float32",
    ),
    (
        lambda x, y: circle_loss(x, y, constant_weights=3),
        TypeError,
        "constant_weights must be a bool, got int",
    ),
    (lambda x, y: supcon_loss(x, y, metric="manhattan"), ValueError, "metric must be one of 'euclidean'"),
    (lambda x, y: contrastive_loss(x, y, "a"), ValueError, "pos_margin must be a finite number, got 'a'"),
    (lambda x, y: multi_similarity_loss(x, y, beta=-1), ValueError, "beta must be a positive finite number"),
    (
        lambda x, y: circle_loss(x, y, gamma=True),
        ValueError,
        "gamma must be a positive finite number, got True",
    ),
    (lambda x, y: batch_all_triplet_loss(x, y, NAN), ValueError, "margin must be a finite number, got nan"),
    (lambda x, y: batch_all_triplet_loss(x, y, reduction="max"), ValueError, "reduction must be one of"),
    (lambda x, y: ntxent_loss(x, y[:2]), ValueError, r"labels must have shape \[4\], got \[2\]"),
    (lambda x, y: ntxent_loss(x, y, ref=x), ValueError, "ref and ref_labels go together"),
    (
        lambda x, y: info_nce_loss(x, x[:2]),
        ValueError,
        "keys must have at least the 4 rows of queries, got 2",
    ),
    (lambda x, y: prototypical_loss(x, y, x[:0], y[:0]), ValueError, "supports must have at least one row"),
    (lambda x, y: prototypical_loss(x, y, x, y + 9), IndexError, r"support_labels must lie in \[0, 4\)"),
]


@pytest.mark.parametrize(("call", "error", "message"), ERRORS, ids=[message for _, _, message in ERRORS])
def test_wrong_arguments(
    call: Callable[[Tensor, Tensor], Tensor], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call(torch.randn(4, 3), torch.arange(4) % 2)


MODULES = {
    "NTXentLoss": ntxent_loss,
    "SupConLoss": supcon_loss,
    "ContrastiveLoss": contrastive_loss,
    "MultiSimilarityLoss": multi_similarity_loss,
    "CircleLoss": circle_loss,
    "BatchAllTripletLoss": batch_all_triplet_loss,
    "SemiHardTripletLoss": semi_hard_triplet_loss,
}


@pytest.mark.parametrize("name", MODULES)
def test_modules_are_the_operations_with_their_defaults(name: str) -> None:
    x, labels = torch.randn(30, 6), torch.arange(30) % 5
    module = getattr(siamese_fast, name)()
    assert getattr(losses, name) is type(module)
    assert torch.equal(module(x, labels), MODULES[name](x, labels))
    own = torch.arange(30)
    assert torch.equal(
        module(x, labels, ref=x, ref_labels=labels, self_index=own),
        MODULES[name](x, labels, ref=x, ref_labels=labels, self_index=own),
    )
    assert "reduction='mean" in repr(module)
