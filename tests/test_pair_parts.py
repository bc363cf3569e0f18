"""Losses over all pairs whose columns come part by part: those of all columns at once, in every room."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rooms import ROOMS, serving
from torch import Tensor

from siamese_fast.ops.pair_fold import FOLDS, start_of
from siamese_fast.ops.pair_loss import FORMULAS, METRICS, losses_of_prepared, pair_gradients, prepared
from siamese_fast.ops.pair_parts import Against, folded
from siamese_fast.testing import Draw

PARAMETERS = {
    "ntxent": [0.7],
    "supcon": [0.7],
    "contrastive": [-0.3, -1.5],
    "multi_similarity": [2.0, 6.0, 0.5],
    "circle": [0.4, 3.0, 0.0],
}
WHOLE = torch.ops.siamese_fast.pair_loss.default


def in_parts(ref: Tensor, classes: Tensor, own: Tensor, cuts: list[int]) -> list[Against]:
    found: list[Against] = []
    for start, stop in zip([0, *cuts], [*cuts, len(ref)], strict=True):
        inside = (own >= start) & (own < stop)
        found.append((ref[start:stop], classes[start:stop], torch.where(inside, own - start, -1)))
    return found


def compare(formula: str, metric: str, dtype: torch.dtype, rows: int, others: int, cuts: list[int]) -> None:
    draw = Draw(dtype, seed=rows + others)
    labels, classes = draw.labels(rows, 4), draw.labels(others, 5)
    own = torch.randint(-1, max(1, others), (rows,), generator=draw.generator).clamp_max(others - 1)
    operands = prepared(draw.rows(rows, 5), labels, metric, False, draw.rows(others, 5), classes, own)
    x, _, ref, *_ = operands
    assert ref is not None
    arguments = (formula, metric, PARAMETERS[formula])
    losses, counts = losses_of_prepared(*operands, *arguments)
    found = folded(x, labels, lambda: in_parts(ref, classes, own, cuts), *arguments)
    close = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 1e-10, "atol": 1e-10}
    torch.testing.assert_close(found.losses, losses, **close)
    torch.testing.assert_close(found.counts, counts)
    assert torch.equal(
        found.pairs.sum(1),
        torch.full_like(found.pairs[:, 0], others)
        - ((own >= 0) & (classes[own.clamp_min(0)] == labels) if others else own * 0).to(x.dtype),
    )
    grad = torch.ones_like(losses)
    gradients = [
        pair_gradients(grad, *operands, statistics, *arguments)
        for statistics in (found.statistics, WHOLE(*operands, *arguments)[2])
    ]
    torch.testing.assert_close(*gradients, **close)


def test_every_formula_has_a_fold_with_its_fields() -> None:
    assert FOLDS.keys() == FORMULAS.keys() == PARAMETERS.keys()
    for name, formula in FORMULAS.items():
        assert start_of(name, torch.zeros(3, 2)).shape == (formula.fields, 3)


@pytest.mark.sanitize
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("formula", PARAMETERS)
def test_parts_are_the_whole(formula: str, dtype: torch.dtype, room: str) -> None:
    for metric in METRICS:
        compare(formula, metric, dtype, 40, 600, [7, 7, 300])
    compare(formula, "cosine", dtype, 5, 0, [])
    compare(formula, "cosine", dtype, 0, 5, [2])


@pytest.mark.parametrize("formula", PARAMETERS)
@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.lists(st.integers(0, 40), max_size=4))
def test_wherever_the_columns_are_cut(formula: str, rows: int, cuts: list[int]) -> None:
    for room in (ROOMS[0], ROOMS[-1]):
        with serving(room):
            compare(formula, "cosine", torch.float64, rows, 40, sorted(cuts))


@pytest.mark.sanitize
@pytest.mark.parametrize("formula", PARAMETERS)
def test_a_batch_against_itself_may_be_a_part(formula: str, room: str) -> None:
    """What a rank of the ring sees first: its own rows, without a set of their own."""
    draw = Draw(torch.float64)
    labels = draw.labels(300, 9)
    x, *_ = prepared(draw.rows(300, 6), labels, "cosine", False, None, None, None)
    other, classes = draw.rows(70, 6), draw.labels(70, 9)
    both, own = torch.cat([x, other]), torch.arange(300)
    arguments = (formula, "cosine", PARAMETERS[formula])
    whole = losses_of_prepared(x, labels, both, torch.cat([labels, classes]), own, *arguments)
    parts: list[Against] = [(None, None, None), (other, classes, None)]
    found = folded(x, labels, lambda: parts, *arguments)
    torch.testing.assert_close((found.losses, found.counts), whole)
