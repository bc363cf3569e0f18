"""Same bits on every run and every thread count; a row's result does not depend on the batch around it.

Every output is written.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from rooms import DTYPES, dtype_name, serving, variants
from torch import Tensor

from siamese_fast import (
    class_scores,
    distance,
    distance_matrix,
    hardest_pairs,
    l1_similarity,
    l1_similarity_bce,
    l1_similarity_matrix,
    nearest_support,
    triplet_loss,
)
from siamese_fast.testing import CASES, Case, Draw, Inputs, Options, Size, outputs_of, prepare

METRICS = ("euclidean", "sqeuclidean", "cosine", "dot", "manhattan")


def run(case: Case, inputs: Inputs, options: Options) -> tuple[Tensor, ...]:
    leaves = [inputs[name] for name in case.differentiable if name in inputs]
    outputs = outputs_of(case, inputs, options)
    return (*outputs, *(torch.autograd.grad(outputs[0].sum(), leaves) if leaves else ()))


def assert_bits(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    for got, want in zip(found, expected, strict=True):
        assert torch.equal(got.detach(), want.detach())


@pytest.mark.sanitize
@pytest.mark.parametrize(("case", "variant"), variants())
def test_same_bits_on_every_run_and_thread_count(
    case: Case, variant: str, native_room: str, threads: None
) -> None:
    size = Size(700, 530, 11)
    inputs = prepare(case, size, Draw(torch.float32))
    expected = run(case, inputs, case.variants[variant])
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        assert_bits(run(case, inputs, case.variants[variant]), expected)


@pytest.mark.parametrize("name", list(CASES))
def test_reference_repeats_its_bits(name: str) -> None:
    case, variant = CASES[name], next(iter(CASES[name].variants))
    inputs = prepare(case, Size(90, 70, 11), Draw(torch.float32))
    with serving("reference"):
        assert_bits(run(case, inputs, case.variants[variant]), run(case, inputs, case.variants[variant]))


@pytest.mark.parametrize("metric", ["sqeuclidean", "dot", "manhattan"])
def test_ties_across_blocks_and_threads(metric: str, native_room: str, threads: None) -> None:
    """Integers of few values in more rows than one task mines: equal scores meet from every direction, the
    lowest index wins.
    """
    draw = Draw(torch.float32)
    x = torch.randint(-1, 2, (2600, 4), generator=draw.generator).float()
    labels = draw.labels(2600, 40)
    with serving("reference"):
        expected = hardest_pairs(x, labels, metric=metric)
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        assert_bits(hardest_pairs(x, labels, metric=metric), expected)


def test_a_hub_has_the_same_bits_on_every_thread_count(native_room: str, threads: None) -> None:
    """One row is the negative of all others: its gradient is summed over the batch, in fixed chunks."""
    anchor = torch.arange(5000)
    x = Draw(torch.float64).rows(5000, 7).requires_grad_()

    def gradient() -> Tensor:
        negative = torch.full((5000,), 17)
        loss = triplet_loss(anchor, anchor.roll(1), negative, embeddings=x, margin=None, reduction="sum")
        return torch.autograd.grad(loss, x)[0]

    found = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        found.append(gradient())
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])
    with serving("reference"):
        torch.testing.assert_close(found[0], gradient())


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
@pytest.mark.parametrize("metric", METRICS)
def test_pairs_do_not_depend_on_their_batch(metric: str, dtype: torch.dtype, native_room: str) -> None:
    """A distance is a function of its two rows: in a batch of any size, at any place, row by row or in a
    matrix of any tile.
    """
    draw = Draw(dtype)
    x, y = draw.rows(70, 75), draw.rows(70, 75)
    whole = distance_matrix(x, y, metric)
    assert torch.equal(distance_matrix(x[13:14], y[5:6], metric), whole[13:14, 5:6])
    assert torch.equal(distance_matrix(x[3:41], y[9:68], metric), whole[3:41, 9:68])
    assert torch.equal(distance_matrix(x.flip(0), y, metric), whole.flip(0))
    assert torch.equal(distance_matrix(x, y.flip(0), metric), whole.flip(1))
    rows = distance(x, y, metric)
    assert torch.equal(distance(x[17:30], y[17:30], metric), rows[17:30])
    if metric != "dot":
        assert torch.equal(distance(y, x, metric), rows)
        assert torch.equal(distance_matrix(y, x, metric), whole.T)


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
def test_koch_logits_do_not_depend_on_their_batch(dtype: torch.dtype, native_room: str) -> None:
    draw = Draw(dtype)
    q, s, weight = draw.rows(70, 75), draw.rows(70, 75), draw.weight(75)
    for exact in (True, False):
        whole = l1_similarity_matrix(q, s, weight, 0.5, exact=exact)
        assert torch.equal(
            l1_similarity_matrix(q[3:41], s[9:68], weight, 0.5, exact=exact), whole[3:41, 9:68]
        )
        assert torch.equal(l1_similarity_matrix(q[5:6], s[8:9], weight, 0.5, exact=exact), whole[5:6, 8:9])
        assert torch.equal(l1_similarity_matrix(q.flip(0), s, weight, 0.5, exact=exact), whole.flip(0))
    rows = l1_similarity(q, s, weight, 0.5)
    assert torch.equal(l1_similarity(q[11:13], s[11:13], weight, 0.5), rows[11:13])
    target = draw.labels(70, 2)
    losses = l1_similarity_bce(q, s, weight, 0.5, target, reduction="none")
    assert torch.equal(
        l1_similarity_bce(q[4:9], s[4:9], weight, 0.5, target[4:9], reduction="none"), losses[4:9]
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
def test_cross_entropy_of_a_pair_does_not_depend_on_its_batch(dtype: torch.dtype, native_room: str) -> None:
    # 67 rows: a vector body and a scalar tail at every width, which must round alike.
    generator = torch.Generator().manual_seed(3)
    h1, h2 = (torch.randn(67, 9, generator=generator).to(dtype).requires_grad_() for _ in range(2))
    weight = torch.randn(9, generator=generator).to(dtype)
    target = torch.rand(67, generator=generator) > 0.5
    together = l1_similarity_bce(h1, h2, weight, 0.1, target, "none", 2.3)
    gradient = torch.autograd.grad(together.sum(), h1)[0]
    for i in range(67):
        rows = slice(i, i + 1)
        alone = l1_similarity_bce(h1[rows], h2[rows], weight, 0.1, target[rows], "none", 2.3)
        assert torch.equal(alone, together[rows])
        assert torch.equal(torch.autograd.grad(alone.sum(), h1)[0][rows], gradient[rows])


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
@pytest.mark.parametrize("metric", METRICS)
def test_look_ups_do_not_depend_on_other_queries(metric: str, dtype: torch.dtype, native_room: str) -> None:
    draw = Draw(dtype)
    q, s, classes = draw.rows(70, 35), draw.rows(90, 35), draw.labels(90, 8)
    scores, index = nearest_support(q, s, 4, metric=metric)
    some_scores, some_index = nearest_support(q[7:12], s, 4, metric=metric)
    assert torch.equal(some_scores, scores[7:12])
    assert torch.equal(some_index, index[7:12])
    for reduce in ("max", "mean", "prototype"):
        whole = class_scores(q, s, classes, 8, metric=metric, reduce=reduce)
        assert torch.equal(class_scores(q[7:12], s, classes, 8, metric=metric, reduce=reduce), whole[7:12])


@pytest.mark.parametrize("metric", METRICS)
def test_the_order_of_a_batch_does_not_matter(metric: str, native_room: str) -> None:
    """Shuffled rows have shuffled hardest pairs and losses; no two distances tie here."""
    draw = Draw(torch.float64)
    labels = draw.labels(120, 9)
    x = draw.rows(120, 12)
    order = torch.randperm(120, generator=draw.generator)
    back = order.argsort()
    positive, negative = hardest_pairs(x, labels, metric=metric)
    found_positive, found_negative = hardest_pairs(x[order], labels[order], metric=metric)
    assert torch.equal(back[positive[order]], found_positive)
    assert torch.equal(back[negative[order]], found_negative)
    losses = CASES["batch_hard_triplet_loss"].function(x, labels, metric=metric, reduction="none")
    shuffled = CASES["batch_hard_triplet_loss"].function(
        x[order], labels[order], metric=metric, reduction="none"
    )
    assert torch.equal(losses[order], shuffled)


@pytest.fixture
def poison() -> Iterator[None]:
    """`torch.empty` full of NaN, so that an element that is never written shows."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize(("case", "variant"), variants())
def test_every_output_is_written(case: Case, variant: str, room: str, poison: None) -> None:
    for size in (Size(0, 5, 3), Size(5, 0, 3), Size(1, 1, 1), Size(33, 37, 19), Size(300, 270, 3)):
        inputs = prepare(case, size, Draw(torch.float32))
        for value in run(case, inputs, case.variants[variant]):
            assert not value.isnan().any(), size
            assert value.is_floating_point() or bool((value < 1 << 40).all()), size
