"""The Triton kernels on the CPU: run by `test_kernels.py` in a process of its own, with TRITON_INTERPRET=1.

The interpreter costs per Triton operation, not per element. It runs no product of bfloat16 (operands are
widened first) and ignores `input_precision`: it proves the logic, not what the tensor cores round.
"""

from __future__ import annotations

from collections.abc import Iterator
from unittest import mock

import pytest
import torch
from rooms import DTYPES, WORKLOADS, dtype_name, split, variants
from torch import Tensor

from siamese_fast import (
    backend,
    batch_hard_triplet_loss,
    circle_loss,
    class_scores,
    contrastive_loss,
    distance_matrix,
    hardest_pairs,
    l1_similarity,
    l1_similarity_matrix,
    multi_similarity_loss,
    nearest_support,
    ntxent_loss,
    supcon_loss,
    triplet_loss,
)
from siamese_fast.kernels import _launch, triplet_loss_backward
from siamese_fast.kernels import nearest_support as nearest_support_room
from siamese_fast.testing import Case, Draw, check

NAN, INF = float("nan"), float("inf")


@pytest.fixture(autouse=True)
def triton() -> Iterator[None]:
    with backend.use("triton"):
        yield


@pytest.fixture
def many_strips() -> Iterator[None]:
    """As on a device that few rows do not fill: candidates are cut into strips of one tile."""
    with mock.patch.object(_launch, "processors", return_value=1000):
        yield


def both(function: object, *arguments: object, **options: object) -> tuple[object, object]:
    """What the kernels find, and the reference."""
    assert callable(function)
    found = function(*arguments, **options)
    with backend.use("reference"):
        return found, function(*arguments, **options)


def test_the_kernels_serve() -> None:
    served, kernels = backend.table(), backend.triton_operations()
    assert len(kernels) >= 18
    assert {served[name] for name in kernels} == {"triton (interpreted)"}
    assert {served[name] for name in served.keys() - kernels} <= {"reference"}
    assert backend.table("cuda")["hardest_pairs"] == "triton"


@pytest.mark.parametrize(("case", "variant"), variants())
def test_gap_rule(case: Case, variant: str) -> None:
    """One workload and dtype of each, another for every case and variant."""
    short, _ = split(f"{case.name} {variant}", share=9)
    for place, number in enumerate(short[:1]):
        size, kind = WORKLOADS[number]
        if size.depth <= 300 and size.rows <= 70:
            check(case, variant, size, Draw(DTYPES[(number + place) % 4], kind))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
@pytest.mark.parametrize(("case", "variant"), variants())
def test_gap_rule_everywhere(case: Case, variant: str, dtype: torch.dtype) -> None:
    for size, kind in WORKLOADS:
        check(case, variant, size, Draw(dtype, kind))


@pytest.mark.parametrize("metric", ["sqeuclidean", "dot", "manhattan"])
def test_ties_across_tiles_and_strips(metric: str, many_strips: None) -> None:
    """Integers of few values: equal scores meet in every tile, the lowest index wins."""
    draw = Draw(torch.float32)
    x = torch.randint(-1, 2, (150, 3), generator=draw.generator).float()
    labels = draw.labels(150, 5)
    found, expected = both(hardest_pairs, x, labels, metric=metric)
    assert isinstance(found, tuple) and isinstance(expected, tuple)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
    found, expected = both(nearest_support, x[:20], x, 3, metric=metric)
    assert isinstance(found, tuple) and isinstance(expected, tuple)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])


@pytest.mark.parametrize("metric", ["euclidean", "manhattan", "dot"])
def test_nan_rows_are_ignored_and_an_overflowing_norm_is_searched_exactly(metric: str) -> None:
    x = torch.randn(20, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(20) % 4
    x[3, 2], x[8, 0], x[9] = NAN, INF, 1e25
    for rows in (x, x[9:10].expand(4, 5).contiguous()):
        classes = labels[: len(rows)]
        found, expected = both(hardest_pairs, rows, classes, metric=metric)
        assert isinstance(found, tuple) and isinstance(expected, tuple)
        assert found[0].tolist() == expected[0].tolist()
        assert found[1].tolist() == expected[1].tolist()
    found, expected = both(nearest_support, x[7:11], x, 3, metric=metric)
    assert isinstance(found, tuple) and isinstance(expected, tuple)
    assert found[1].tolist() == expected[1].tolist()


def test_a_nan_anchor_has_a_nan_loss_and_gradient_in_its_own_row_alone() -> None:
    x = Draw(torch.float64).rows(12, 3)
    x[5, 1] = NAN
    x.requires_grad_()
    losses = batch_hard_triplet_loss(x, torch.arange(12) % 3, reduction="none")
    assert isinstance(losses, Tensor)
    assert losses.isnan().tolist() == [i == 5 for i in range(12)]
    (grad,) = torch.autograd.grad(losses.sum(), x)
    assert grad.isnan().any(1).tolist() == [i == 5 for i in range(12)]


@pytest.mark.parametrize("classes", [1, 60])
def test_batches_without_triplets(classes: int) -> None:
    x = Draw(torch.float32).rows(60, 3).requires_grad_()
    loss = batch_hard_triplet_loss(x, torch.arange(60) % classes)
    assert isinstance(loss, Tensor)
    assert loss.item() == 0
    assert (torch.autograd.grad(loss, x)[0] == 0).all()
    positive, negative = hardest_pairs(x.detach(), torch.arange(60) % classes)
    assert bool((positive < 0).all()) == (classes == 60)
    assert bool((negative < 0).all()) == (classes == 1)


@pytest.mark.parametrize("hubs", [1, 2])
def test_a_hub_is_summed_in_pieces(hubs: int) -> None:
    """More contributions to a row than two pieces hold, at the middle of the sorted list."""
    count = 700
    with mock.patch.object(triplet_loss_backward, "PIECE", 64):
        x = Draw(torch.float64).rows(90, 7).requires_grad_()
        anchor = torch.arange(count) % 90
        negative = 17 + torch.arange(count) % hubs
        options = {"embeddings": x, "margin": None, "reduction": "sum"}
        loss = triplet_loss(anchor, (anchor + 1) % 90, negative, **options)
        (found,) = torch.autograd.grad(loss, x)
        with backend.use("reference"):
            loss = triplet_loss(anchor, (anchor + 1) % 90, negative, **options)
        torch.testing.assert_close(found, torch.autograd.grad(loss, x)[0])


def test_more_neighbours_than_lists_hold_are_found_by_the_reference() -> None:
    q, s = torch.randn(3, 4), torch.randn(90, 4)
    found, expected = both(nearest_support, q, s, 70)
    assert isinstance(found, tuple) and isinstance(expected, tuple)
    assert torch.equal(found[1], expected[1])


def test_equal_scores_of_two_strips_come_by_index() -> None:
    """The list of a strip is in no order: of its equal scores, that of the lower index must enter first."""
    s = torch.full((768, 1), -9.0)
    s[0], s[384], s[512], s[640] = 5, 1, 2, 2
    with mock.patch.object(nearest_support_room, "strips", return_value=(2, 384)):
        assert nearest_support(torch.ones(1, 1), s, 2, metric="dot")[1].tolist() == [[0, 512]]


def test_more_neighbours_than_supports_are_padded() -> None:
    scores, index = nearest_support(torch.zeros(1, 3), torch.eye(3)[:2], k=4)
    assert index.tolist() == [[0, 1, -1, -1]]
    assert scores[0, 2:].tolist() == [-INF, -INF]


def test_rows_that_fill_their_tiles() -> None:
    """Whose copy by columns needs no padding."""
    x = Draw(torch.float32).rows(128, 5)
    found, expected = both(distance_matrix, x, x, "manhattan")
    assert isinstance(found, Tensor) and isinstance(expected, Tensor)
    torch.testing.assert_close(found, expected)


def test_a_row_does_not_depend_on_its_batch() -> None:
    draw = Draw(torch.float32)
    q, s, weight = draw.rows(90, 40), draw.rows(150, 40), draw.weight(40)
    whole = l1_similarity_matrix(q, s, weight, 0.5)
    assert torch.equal(l1_similarity_matrix(q[5:6], s[140:], weight, 0.5), whole[5:6, 140:])
    classes = draw.labels(150, 6)
    scores = class_scores(q, s, classes, 6, reduce="mean")
    assert torch.equal(class_scores(q[80:], s, classes, 6, reduce="mean"), scores[80:])
    best, index = nearest_support(q, s, 5)
    some, some_index = nearest_support(q[31:40], s, 5)
    assert torch.equal(some, best[31:40]) and torch.equal(some_index, index[31:40])


PAIR_LOSSES = {
    "ntxent": ntxent_loss,
    "supcon": supcon_loss,
    "contrastive": contrastive_loss,
    "multi_similarity": multi_similarity_loss,
    "circle": circle_loss,
}


@pytest.mark.parametrize("name", list(PAIR_LOSSES))
def test_losses_over_all_pairs_with_a_set_of_many_strips(name: str) -> None:
    """Rows out of order, a class that the set lacks, anchors that are rows of the set."""
    draw = Draw(torch.float32)
    x, ref = draw.rows(70, 3).requires_grad_(), draw.rows(600, 3).requires_grad_()
    labels, classes = draw.labels(70, 6), draw.labels(600, 5)
    self_index = torch.where(torch.arange(70) % 3 == 0, torch.arange(70) * 7, -1)
    options = {"reduction": "none", "ref": ref, "ref_labels": classes, "self_index": self_index}
    found, expected = both(PAIR_LOSSES[name], x, labels, **options)
    assert isinstance(found, Tensor) and isinstance(expected, Tensor)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    for got, want in zip(
        torch.autograd.grad(found.sum(), (x, ref)), torch.autograd.grad(expected.sum(), (x, ref)), strict=True
    ):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", list(PAIR_LOSSES))
@pytest.mark.parametrize("classes", [1, 30])
def test_losses_over_all_pairs_of_one_kind_alone(name: str, classes: int) -> None:
    """No negatives, then no positives."""
    x = Draw(torch.float32).rows(30, 4).requires_grad_()
    found, expected = both(PAIR_LOSSES[name], x, torch.arange(30) % classes, reduction="none")
    assert isinstance(found, Tensor) and isinstance(expected, Tensor)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad(found.sum(), x)[0], torch.autograd.grad(expected.sum(), x)[0]
    )


def test_a_nan_makes_every_loss_that_it_enters_nan() -> None:
    x = Draw(torch.float32).rows(40, 4)
    x[3, 1], x[7, 0] = NAN, 1e30
    for name, metric in (("contrastive", "euclidean"), ("supcon", "sqeuclidean"), ("ntxent", "dot")):
        found, expected = both(PAIR_LOSSES[name], x, torch.arange(40) % 4, metric=metric, reduction="none")
        assert isinstance(found, Tensor) and isinstance(expected, Tensor)
        assert torch.equal(found.isnan(), expected.isnan()), name
        assert torch.equal(found.isinf(), expected.isinf()), name


def test_near_rows_far_from_the_origin_are_scored_by_differences() -> None:
    """The product form of their distances has no digit left."""
    x = 100 + 1e-3 * Draw(torch.float32).rows(40, 4)
    options = {"metric": "euclidean", "neg_margin": 0.01, "reduction": "none"}
    found, expected = both(contrastive_loss, x, torch.arange(40) % 4, **options)
    assert isinstance(found, Tensor) and isinstance(expected, Tensor)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_gradients_of_nan_and_infinity_are_those_of_the_reference() -> None:
    q, s = torch.randn(20, 3), torch.randn(20, 3)
    q[3, 2], s[5, 1] = NAN, NAN
    q[7, 0] = s[7, 0] = INF
    for operation in (l1_similarity, l1_similarity_matrix):
        leaves = [value.detach().requires_grad_() for value in (q, s, torch.ones(3))]
        found, expected = both(operation, *leaves)
        assert isinstance(found, Tensor) and isinstance(expected, Tensor)
        for got, want in zip(
            torch.autograd.grad(found.sum(), leaves[:2]),
            torch.autograd.grad(expected.sum(), leaves[:2]),
            strict=True,
        ):
            torch.testing.assert_close(got, want, equal_nan=True)


def test_a_precision_is_chosen_by_name() -> None:
    x, labels = Draw(torch.float32).rows(40, 6), torch.arange(40) % 5
    exact = hardest_pairs(x, labels)
    with backend.use_mining_precision("bf16"):
        rough = hardest_pairs(x, labels)
    distance = torch.cdist(x, x)
    for found, best in zip(rough, exact, strict=True):
        gap = distance.gather(1, found[:, None]) - distance.gather(1, best[:, None])
        assert gap.abs().max() < 0.3
    with (
        pytest.raises(
            ValueError, match="precision must be one of 'tf32x3', 'tf32', 'bf16', 'ieee', got 'fp8'"
        ),
        backend.use_mining_precision("fp8"),
    ):
        pass
