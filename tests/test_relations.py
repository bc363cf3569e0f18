"""Rows left out, weights, several labels a row, masks of pairs: one mechanism under every loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from siamese_fast import (
    batch_all_triplet_loss,
    batch_hard_triplet_loss,
    circle_loss,
    contrastive_loss,
    multi_similarity_loss,
    ntxent_loss,
    ranked_triplet_loss,
    semi_hard_triplet_loss,
    supcon_loss,
)
from siamese_fast.testing import Draw

LOSSES: dict[str, Callable[..., Any]] = {
    "ntxent": ntxent_loss,
    "supcon": supcon_loss,
    "contrastive": contrastive_loss,
    "multi_similarity": multi_similarity_loss,
    "circle": circle_loss,
    "batch_all": batch_all_triplet_loss,
    "batch_all_soft": lambda *given, **options: batch_all_triplet_loss(*given, margin=None, **options),
    "semi_hard": semi_hard_triplet_loss,
    "ranked": lambda *given, **options: ranked_triplet_loss(*given, negatives=3, **options),
    "batch_hard": batch_hard_triplet_loss,
}
REDUCTIONS = ("mean", "sum", "mean_nonzero")
ROWS, CLASSES = 90, (2, 20)


def batch(classes: int, rows: int = ROWS) -> tuple[Tensor, Tensor]:
    draw = Draw(torch.float64, seed=classes)
    labels = draw.labels(rows, classes)
    return draw.rows(rows, 8, labels).requires_grad_(), labels


def agree(found: Tensor, expected: Tensor, *leaves: Tensor) -> None:
    torch.testing.assert_close(found, expected)
    for got, want in zip(
        torch.autograd.grad(found.sum(), leaves, allow_unused=True, retain_graph=True),
        torch.autograd.grad(expected.sum(), leaves, allow_unused=True, retain_graph=True),
        strict=True,
    ):
        torch.testing.assert_close(got, want)


@pytest.mark.sanitize
@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("name", LOSSES)
def test_ignored_rows_are_as_if_they_were_not_there(name: str, classes: int, room: str) -> None:
    x, labels = batch(classes)
    labels[::7] = -100
    kept = labels != -100
    for reduction in REDUCTIONS:
        found = LOSSES[name](x, labels, ignore_label=-100, reduction=reduction)
        agree(found, LOSSES[name](x[kept], labels[kept], reduction=reduction), x)
    each = LOSSES[name](x, labels, ignore_label=-100, reduction="none")
    agree(each[kept], LOSSES[name](x[kept], labels[kept], reduction="none"), x)
    assert torch.equal(each[~kept], torch.zeros_like(each[~kept]))


@pytest.mark.parametrize("name", LOSSES)
def test_ignored_rows_of_a_separate_set(name: str, room: str) -> None:
    x, labels = batch(20)
    ref, ref_labels = (rows.detach()[:61].clone() for rows in (x.flip(0), labels.flip(0)))
    ref.requires_grad_()
    labels[3], ref_labels[5:9] = 7, 7
    own = torch.arange(ROWS).clamp_max(60)
    kept = ref_labels != 7
    place = torch.where(kept, kept.cumsum(0) - 1, -1)[own]
    anchors = labels != 7
    found = LOSSES[name](
        x, labels, ref=ref, ref_labels=ref_labels, self_index=own, ignore_label=7, reduction="sum"
    )
    others = {"ref": ref[kept], "ref_labels": ref_labels[kept], "self_index": place[anchors]}
    agree(found, LOSSES[name](x[anchors], labels[anchors], reduction="sum", **others), x, ref)


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_of_ignored_rows_backpropagates_zeros(name: str, room: str) -> None:
    x = torch.randn(5, 3, requires_grad=True)
    loss = LOSSES[name](x, torch.full((5,), 4), ignore_label=4)
    (gradient,) = torch.autograd.grad(loss, x)
    assert loss == 0 and torch.equal(gradient, torch.zeros_like(x))


@pytest.mark.sanitize
@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("name", LOSSES)
def test_labels_masks_and_sets_say_the_same(name: str, classes: int, room: str) -> None:
    x, labels = batch(classes)
    same = labels[:, None] == labels
    hot = torch.nn.functional.one_hot(labels + 60, 80)
    for reduction in (*REDUCTIONS, "none"):
        expected = LOSSES[name](x, labels, reduction=reduction)
        agree(LOSSES[name](x, None, pair_mask=same, reduction=reduction), expected, x)
        agree(LOSSES[name](x, hot, reduction=reduction), expected, x)


@pytest.mark.parametrize("name", LOSSES)
def test_sets_of_labels_are_the_mask_of_those_that_meet(name: str, room: str) -> None:
    draw = Draw(torch.float64)
    x, ref = draw.rows(40, 6).requires_grad_(), draw.rows(300, 6).requires_grad_()
    several, others = (torch.rand(rows, 70, generator=draw.generator) < 0.04 for rows in (40, 300))
    mask = (several[:, None] & others).any(2)
    sets = LOSSES[name](x, several, ref=ref, ref_labels=others)
    agree(sets, LOSSES[name](x, None, ref=ref, pair_mask=mask), x, ref)


@pytest.mark.parametrize("name", LOSSES)
def test_pairs_that_are_neither(name: str, room: str) -> None:
    """What the mask leaves out of two blocks of rows, they do not see of each other."""
    x, labels = batch(10)
    half = torch.arange(ROWS) < 40
    mask = torch.where(half[:, None] == half, (labels[:, None] == labels).to(torch.int8), -1)
    found = LOSSES[name](x, None, pair_mask=mask, reduction="sum")
    parts = [LOSSES[name](x[part], labels[part], reduction="sum") for part in (half, ~half)]
    agree(found, parts[0] + parts[1], x)


@pytest.mark.parametrize("name", LOSSES)
def test_weights_multiply_terms(name: str, room: str) -> None:
    """A mean is that of anchors repeated as often as they weigh, over one set for all."""
    x, labels = batch(20)
    times = torch.arange(ROWS) % 3
    weight = times.double()
    again = torch.repeat_interleave(times)
    ref = x.detach()
    for reduction in REDUCTIONS:
        found = LOSSES[name](x, labels, weight=weight, ref=ref, ref_labels=labels, reduction=reduction)
        repeated = LOSSES[name](x[again], labels[again], ref=ref, ref_labels=labels, reduction=reduction)
        agree(found, repeated, x)
    each = LOSSES[name](x, labels, weight=weight, reduction="none")
    expected = LOSSES[name](x, labels, reduction="none")
    agree(each, expected * weight.view(-1, *(1,) * (expected.dim() - 1)), x)


X, Y = torch.randn(4, 3), torch.arange(4) % 2
ERRORS = [
    (
        {"labels": Y, "weight": torch.ones(3)},
        ValueError,
        r"weight must be a tensor of shape \[4\], got \[3\]",
    ),
    ({"labels": Y, "weight": torch.ones(4).long()}, TypeError, "weight must be torch.float32 beside"),
    ({"labels": Y, "ignore_label": 1.0}, TypeError, "ignore_label must be None or an int, got float"),
    ({"labels": Y, "pair_mask": torch.eye(4).bool()}, ValueError, "pair_mask takes the place of labels"),
    ({"labels": None, "pair_mask": torch.eye(4)}, TypeError, "pair_mask must be of an integer or bool dtype"),
    (
        {"labels": None, "pair_mask": torch.eye(3).bool()},
        ValueError,
        r"pair_mask must be a tensor of shape \[4, 4\]",
    ),
    ({"labels": torch.eye(4).bool(), "ignore_label": 0}, ValueError, r"ignore_label goes with labels \[N\]"),
    ({"labels": torch.eye(3).bool()}, ValueError, r"labels must be a tensor of shape \[4, 3\], got \[3, 3\]"),
    ({"labels": None}, TypeError, r"labels must be a torch.Tensor \[N\], got NoneType"),
]


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(("given", "error", "message"), ERRORS, ids=[message for _, _, message in ERRORS])
def test_wrong_arguments(name: str, given: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        LOSSES[name](X, given["labels"], **{k: v for k, v in given.items() if k != "labels"})
