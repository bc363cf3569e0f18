"""hypothesis: any case, size, dtype, kind of data and seed; and what must hold between operations."""

from __future__ import annotations

import hypothesis.strategies as st
import torch
from hypothesis import given
from rooms import DTYPES, NATIVE_ROOMS, serving
from torch import Tensor

from siamese_fast import class_scores, distance_matrix, hardest_pairs, l1_similarity_matrix, nearest_support
from siamese_fast.testing import CASES, KINDS, Draw, Size, check

METRICS = ("euclidean", "sqeuclidean", "cosine", "dot", "manhattan")
rows = st.integers(0, 40)
depths = st.one_of(st.integers(1, 20), st.sampled_from([31, 33, 64, 127, 129, 255, 257, 513]))
sizes = st.builds(Size, rows, rows, depths)
draws = st.builds(Draw, st.sampled_from(DTYPES), st.sampled_from(KINDS), st.integers(0, 2**31))
names = st.sampled_from([(name, variant) for name, case in CASES.items() for variant in case.variants])


@given(names, sizes, draws, st.sampled_from(NATIVE_ROOMS))
def test_any_case(name: tuple[str, str], size: Size, draw: Draw, room: str) -> None:
    with serving(room):
        check(CASES[name[0]], name[1], size, draw)


@st.composite
def labelled_integers(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Rows of small integers with many ties, and labels anywhere in int64."""
    count, depth = draw(st.integers(0, 24)), draw(st.integers(1, 5))
    cells = draw(st.lists(st.integers(-2, 2), min_size=count * depth, max_size=count * depth))
    values = draw(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=4))
    labels = draw(st.lists(st.sampled_from(values), min_size=count, max_size=count))
    return torch.tensor(cells, dtype=torch.float32).reshape(count, depth), torch.tensor(
        labels, dtype=torch.int64
    )


@given(
    labelled_integers(), st.sampled_from(["sqeuclidean", "dot", "manhattan"]), st.sampled_from(NATIVE_ROOMS)
)
def test_mining_is_the_loop_over_all_pairs(batch: tuple[Tensor, Tensor], metric: str, room: str) -> None:
    x, labels = batch
    rows, names = x.tolist(), labels.tolist()
    with serving(room):
        positive, negative = hardest_pairs(x, labels, metric=metric)
    for i, anchor in enumerate(rows):
        distances = [between(anchor, other, metric) for other in rows]
        same = [j for j in range(len(rows)) if names[j] == names[i] and j != i]
        other = [j for j in range(len(rows)) if names[j] != names[i]]
        assert int(positive[i]) == max(same, key=lambda j: (distances[j], -j), default=-1)
        assert int(negative[i]) == min(other, key=lambda j: (distances[j], j), default=-1)


def between(a: list[float], b: list[float], metric: str) -> float:
    if metric == "dot":
        return -sum(p * q for p, q in zip(a, b, strict=True))
    return sum(abs(p - q) if metric == "manhattan" else (p - q) ** 2 for p, q in zip(a, b, strict=True))


@given(sizes, draws, st.sampled_from(METRICS), st.integers(1, 12))
def test_neighbours_are_the_top_of_the_matrix(size: Size, draw: Draw, metric: str, k: int) -> None:
    """On integers, where scores are exact: the k best of the score matrix, lowest index first."""
    integers = Draw(draw.dtype, "integers", draw.seed)
    q, s = integers.rows(size.rows, size.depth), integers.rows(size.others, size.depth)
    metric = metric if metric in ("sqeuclidean", "dot", "manhattan") else "sqeuclidean"
    scores, index = nearest_support(q, s, k, metric=metric)
    kept = min(k, size.others)
    best, order = (-distance_matrix(q, s, metric)).sort(dim=1, descending=True, stable=True)
    assert torch.equal(index[:, :kept], order[:, :kept])
    assert torch.equal(scores[:, :kept], best[:, :kept])


@given(sizes, draws)
def test_one_class_each_scores_like_the_matrix(size: Size, draw: Draw) -> None:
    """With every support a class of its own, class scores are the score matrix."""
    q, s, weight = (
        draw.rows(size.rows, size.depth),
        draw.rows(size.others, size.depth),
        draw.weight(size.depth),
    )
    own = torch.arange(size.others)
    expected = l1_similarity_matrix(q, s, weight, 0.5)
    for reduce in ("max", "mean"):
        found = class_scores(q, s, own, size.others, weight=weight, bias=0.5, reduce=reduce)
        torch.testing.assert_close(found, expected)
