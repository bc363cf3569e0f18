"""The best score of large classes, found by products, scored by exact differences: none is missed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from siamese_fast import class_scores
from siamese_fast.ops._metrics import distance_block, unit_rows

pytestmark = pytest.mark.sanitize

CLASSES = 3
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
INF = float("inf")


def draw(kind: str, rows: int, depth: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, supports and their classes."""
    torch.manual_seed(depth)
    class_index = torch.randint(0, CLASSES, (rows,))
    supports, queries = torch.randn(rows, depth), torch.randn(15, depth)
    if kind == "tight":  # far from the origin, much closer to each other than products can tell
        supports = 30 * torch.randn(CLASSES, depth)[class_index] + 1e-3 * supports
        queries = supports[torch.randint(0, rows, (15,))] + 1e-3 * queries
    if kind == "copies":
        supports = supports[torch.randint(0, 4, (rows,))]
    if kind == "zeros":
        supports, queries = torch.zeros(rows, depth), torch.zeros(15, depth)
    return queries, supports, class_index


def best_of_each_class(q: Tensor, s: Tensor, class_index: Tensor, metric: str) -> Tensor:
    """[Q, C] by every distance in float64."""
    if metric == "cosine":
        q, s = unit_rows(q), unit_rows(s)
    score = -distance_block(q.double(), s.double(), metric) + (metric == "cosine")
    return torch.stack([score[:, class_index == c].amax(1) for c in range(CLASSES)], 1)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine"])
@pytest.mark.parametrize("kind", ["random", "tight", "copies", "zeros"])
def test_no_support_of_the_class_is_nearer(
    native_room: str, kind: str, metric: str, dtype: torch.dtype
) -> None:
    for rows, depth in ((101, 5), (150, 131)):
        q, s, class_index = draw(kind, rows, depth)
        q, s = q.to(dtype), s.to(dtype)
        found = class_scores(q, s, class_index, CLASSES, metric=metric)
        expected = best_of_each_class(q, s, class_index, metric)
        eps = torch.finfo(found.dtype).eps
        bound = 16 * eps * (expected.abs() + (metric == "cosine"))
        assert bool(((found.double() - expected).abs() <= bound).all()), (rows, depth)


def test_supports_that_products_can_not_compare_are_met_one_by_one(native_room: str) -> None:
    q = torch.tensor([[0.0, 1.0], [2e19, 0.0], [float("nan"), 0.0]])
    s = torch.randn(64, 2)
    s[3] = torch.tensor([INF, 0.0])
    s[4] = torch.tensor([float("nan"), 0.0])
    s[5] = torch.tensor([2e19, 0.0])
    found = class_scores(q, s, torch.zeros(64, dtype=torch.int64), 1, metric="euclidean")
    usable = [i for i in range(64) if i not in (3, 4)]
    expected = -distance_block(q[:2].double(), s[usable].double(), "euclidean").amin(1)
    assert found[:2, 0].tolist() == pytest.approx(expected.tolist(), rel=1e-6)
    assert found[2, 0].item() == -INF


def test_a_class_without_supports_keeps_the_lowest_score(native_room: str) -> None:
    found = class_scores(torch.randn(2, 3), torch.randn(64, 3), torch.full((64,), 2), 4, metric="euclidean")
    assert (found[:, [0, 1, 3]] == -INF).all()
    assert found[:, 2].isfinite().all()
