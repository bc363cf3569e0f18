"""Arguments: every accepted form gives the same result; a wrong one raises, naming the argument, what was got
and what is accepted.
"""

from __future__ import annotations

from typing import Any

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
    l1_similarity_bce_grad,
    l1_similarity_matrix,
    nearest_support,
    prepare_support,
    similarity_matrix,
    triplet_loss,
)
from siamese_fast.testing import Draw

X, Y, W = torch.randn(6, 4), torch.randn(6, 4), torch.randn(4)
LABELS, META = torch.arange(6) % 2, torch.zeros(6, 4, device="meta")
INDEX = torch.arange(6)

ERRORS: list[tuple[str, Any, type[Exception], str]] = [
    ("not a tensor", lambda: distance([1.0], Y), TypeError, r"x must be a torch.Tensor \[N, D\], got list"),
    ("one dimension", lambda: distance(W, Y), ValueError, r"x must have shape \[N, D\], got \[4\]"),
    ("integers", lambda: distance(X.long(), Y.long()), TypeError, r"x must be float32.*got torch.int64"),
    ("complex", lambda: distance(X + 0j, Y + 0j), TypeError, r"x must be float32.*got torch.complex64"),
    (
        "no columns",
        lambda: distance(X[:, :0], Y[:, :0]),
        ValueError,
        r"x must have at least one column, got \[6, 0\]",
    ),
    ("columns", lambda: distance(X, Y[:, :3]), ValueError, r"y has 3 columns and x has 4"),
    ("dtypes", lambda: distance(X, Y.double()), TypeError, r"y is torch.float64 and x is torch.float32"),
    ("rows", lambda: distance(X, Y[:5]), ValueError, r"y has 5 rows and x has 6"),
    ("devices", lambda: distance(X, META), ValueError, r"y is on meta and x is on cpu"),
    ("metric", lambda: distance(X, Y, "l2"), ValueError, r"metric must be one of 'euclidean'.*got 'l2'"),
    ("matrix metric", lambda: distance_matrix(X, Y, "l2"), ValueError, r"metric must be one of"),
    ("matrix columns", lambda: distance_matrix(X, Y[:, :3]), ValueError, r"y has 3 columns and x has 4"),
    (
        "similarity names",
        lambda: similarity_matrix(X, Y.half()),
        TypeError,
        r"s is torch.float16 and q is torch.float32",
    ),
    (
        "weight shape",
        lambda: l1_similarity(X, Y, X),
        ValueError,
        r"weight must have shape \[4\] or \[1, 4\], got \[6, 4\]",
    ),
    (
        "weight dtype",
        lambda: l1_similarity(X, Y, W.double()),
        TypeError,
        r"weight must be torch.float32 .*got torch.float64",
    ),
    (
        "weight type",
        lambda: l1_similarity(X, Y, 1.0),
        TypeError,
        r"weight must be a torch.Tensor \[D\], got float",
    ),
    (
        "bias shape",
        lambda: l1_similarity(X, Y, W, W),
        ValueError,
        r"bias must have shape \[\] or \[1\], got \[4\]",
    ),
    ("bias type", lambda: l1_similarity(X, Y, W, "0"), TypeError, r"bias must be None, a number .*got str"),
    (
        "bias dtype",
        lambda: l1_similarity(X, Y, W, W[0].half()),
        TypeError,
        r"bias must be torch.float32.*got torch.float16",
    ),
    ("h2 rows", lambda: l1_similarity(X, Y[:2], W), ValueError, r"h2 has 2 rows and h1 has 6"),
    (
        "target shape",
        lambda: l1_similarity_bce(X, Y, W, None, INDEX[:5]),
        ValueError,
        r"target must have shape \[6\], got \[5\]",
    ),
    (
        "target type",
        lambda: l1_similarity_bce(X, Y, W, None, [1]),
        TypeError,
        r"target must be a torch.Tensor \[B\], got list",
    ),
    (
        "target complex",
        lambda: l1_similarity_bce(X, Y, W, None, INDEX + 0j),
        TypeError,
        r"target must be of a bool, integer or floating dtype",
    ),
    (
        "reduction",
        lambda: l1_similarity_bce(X, Y, W, None, INDEX, "avg"),
        ValueError,
        r"reduction must be one of 'none', 'mean', 'sum', got 'avg'",
    ),
    (
        "pos_weight",
        lambda: l1_similarity_bce(X, Y, W, None, INDEX, pos_weight=W),
        ValueError,
        r"pos_weight must be a number or one element, got shape \[4\]",
    ),
    (
        "grad reduction",
        lambda: l1_similarity_bce_grad(X, Y, W, None, INDEX, "none"),
        ValueError,
        r"reduction must be one of 'mean', 'sum', got 'none'",
    ),
    (
        "grad out",
        lambda: l1_similarity_bce_grad(X, Y, W, None, INDEX, out=(X, X.T)),
        ValueError,
        r"out\[1\] must be contiguous torch.float32 \[6, 4\] on cpu",
    ),
    (
        "matrix out",
        lambda: l1_similarity_matrix(X, Y, W, out=torch.empty(6, 5)),
        ValueError,
        r"out must be contiguous torch.float32 \[6, 6\] on cpu",
    ),
    (
        "matrix out grad",
        lambda: l1_similarity_matrix(X, Y, W.clone().requires_grad_(), out=torch.empty(6, 6)),
        ValueError,
        r"out= does not take part in autograd",
    ),
    (
        "labels shape",
        lambda: hardest_pairs(X, INDEX[:5]),
        ValueError,
        r"labels must have shape \[6\], got \[5\]",
    ),
    (
        "labels dtype",
        lambda: hardest_pairs(X, W[:1].expand(6)),
        TypeError,
        r"labels must be of an integer or bool dtype, got torch.float32",
    ),
    (
        "labels type",
        lambda: hardest_pairs(X, [0]),
        TypeError,
        r"labels must be a torch.Tensor \[N\], got list",
    ),
    ("ref alone", lambda: hardest_pairs(X, LABELS, ref=Y), ValueError, r"ref and ref_labels go together"),
    ("self alone", lambda: hardest_pairs(X, LABELS, self_index=INDEX), ValueError, r"self_index needs ref"),
    (
        "ref columns",
        lambda: hardest_pairs(X, LABELS, ref=Y[:, :2], ref_labels=LABELS),
        ValueError,
        r"ref has 2 columns and x has 4",
    ),
    (
        "self range",
        lambda: hardest_pairs(X, LABELS, ref=Y, ref_labels=LABELS, self_index=INDEX + 1),
        IndexError,
        r"self_index must lie in \[-1, 6\), got values from 1 to 6",
    ),
    (
        "margin",
        lambda: batch_hard_triplet_loss(X, LABELS, "0.2"),
        ValueError,
        r"margin must be a number, or None .*got '0.2'",
    ),
    (
        "margin nan",
        lambda: batch_hard_triplet_loss(X, LABELS, float("nan")),
        ValueError,
        r"margin must be a number, or None .*got nan",
    ),
    (
        "triplet reduction",
        lambda: batch_hard_triplet_loss(X, LABELS, reduction="max"),
        ValueError,
        r"reduction must be one of .*'mean_nonzero', got 'max'",
    ),
    (
        "no_triplet",
        lambda: batch_hard_triplet_loss(X, LABELS, no_triplet="drop"),
        ValueError,
        r"no_triplet must be one of 'skip', 'zero_positive', 'error', got 'drop'",
    ),
    (
        "anchor index range",
        lambda: triplet_loss(INDEX + 1, INDEX, INDEX, embeddings=X),
        IndexError,
        r"anchor must lie in \[0, 6\), got values from 1 to 6",
    ),
    (
        "negative index",
        lambda: triplet_loss(INDEX, INDEX - 1, INDEX, embeddings=X),
        IndexError,
        r"positive must lie in \[0, 6\), got values from -1 to 4",
    ),
    (
        "index shape",
        lambda: triplet_loss(INDEX, INDEX, INDEX[:3], embeddings=X),
        ValueError,
        r"negative must have shape \[6\], got \[3\]",
    ),
    (
        "index dtype",
        lambda: triplet_loss(INDEX, INDEX.bool(), INDEX, embeddings=X),
        TypeError,
        r"positive must be of an integer dtype, got torch.bool",
    ),
    (
        "ref of rows",
        lambda: triplet_loss(X, X, X, ref=X),
        ValueError,
        r"ref goes with embeddings and indices",
    ),
    ("negative rows", lambda: triplet_loss(X, X, X[:2]), ValueError, r"negative has 2 rows and anchor has 6"),
    ("k", lambda: nearest_support(X, Y, 0), ValueError, r"k must be a positive integer, got 0"),
    ("k bool", lambda: nearest_support(X, Y, True), ValueError, r"k must be a positive integer, got True"),
    ("bias without weight", lambda: nearest_support(X, Y, bias=1.0), ValueError, r"bias goes with weight"),
    ("support columns", lambda: nearest_support(X, Y[:, :3]), ValueError, r"s has 3 columns and q has 4"),
    (
        "prepared columns",
        lambda: nearest_support(X, prepare_support(Y[:, :3])),
        ValueError,
        r"q has 4 columns and s has 3",
    ),
    (
        "prepared metric",
        lambda: nearest_support(X, prepare_support(Y), metric="dot"),
        ValueError,
        r"metric is 'dot' but s was prepared for 'euclidean'",
    ),
    (
        "prepared weight",
        lambda: nearest_support(X, prepare_support(Y), weight=W),
        ValueError,
        r"weight and bias belong to prepare_support",
    ),
    (
        "prepared dtype",
        lambda: nearest_support(X.half(), prepare_support(Y)),
        TypeError,
        r"q is torch.float16 and s is torch.float32",
    ),
    (
        "reduce",
        lambda: class_scores(X, Y, LABELS, reduce="sum"),
        ValueError,
        r"reduce must be one of 'max', 'mean', 'prototype', got 'sum'",
    ),
    (
        "class range",
        lambda: class_scores(X, Y, INDEX, 3),
        IndexError,
        r"class_index must lie in \[0, 3\), got values from 0 to 5",
    ),
    (
        "class negative",
        lambda: class_scores(X, Y, INDEX - 1, 6),
        IndexError,
        r"class_index must lie in \[0, 6\), got values from -1 to 4",
    ),
    (
        "class shape",
        lambda: class_scores(X, Y, INDEX[:5]),
        ValueError,
        r"class_index must have shape \[6\], got \[5\]",
    ),
    ("no classes", lambda: class_scores(X, Y), ValueError, r"class_index is needed"),
]


@pytest.mark.parametrize(
    ("call", "error", "message"), [entry[1:] for entry in ERRORS], ids=[entry[0] for entry in ERRORS]
)
def test_wrong_arguments(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_a_prepared_set_of_another_dtype_is_refused(metric: str) -> None:
    with pytest.raises(TypeError, match=r"q is torch.float16 and s is torch.bfloat16"):
        nearest_support(X.half(), prepare_support(Y.bfloat16(), metric))


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
def test_forms_of_the_head(dtype: torch.dtype, room: str) -> None:
    """weight [D] or [1, D], in the dtype of the embeddings or of the arithmetic; bias None, a number, [] or
    [1].
    """
    draw = Draw(dtype)
    h1, h2, weight = draw.rows(9, 20), draw.rows(9, 20), draw.weight(20)
    bias = torch.tensor(0.25, dtype=dtype)
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    expected = l1_similarity(h1, h2, weight, bias)
    for w in (weight, weight[None], weight.to(compute), weight.to(compute)[None]):
        for b in (bias, bias[None], bias.to(compute), 0.25):
            assert torch.equal(l1_similarity(h1, h2, w, b), expected)
            assert torch.equal(
                l1_similarity_matrix(h1, h2, w, b).diagonal(),
                l1_similarity_matrix(h1, h2, weight, bias).diagonal(),
            )
    assert torch.equal(l1_similarity(h1, h2, weight), l1_similarity(h1, h2, weight, 0.0))
    linear = torch.nn.Linear(20, 1, dtype=dtype)
    l1_similarity(h1, h2, linear.weight, linear.bias).sum().backward()
    assert linear.weight.grad.shape == (1, 20)
    assert linear.bias.grad.tolist() == [9.0]
    assert linear.weight.grad.dtype == dtype


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.float64], ids=dtype_name
)
def test_forms_of_the_target(dtype: torch.dtype, room: str) -> None:
    draw = Draw(torch.float32)
    h1, h2, weight, target = draw.rows(9, 20), draw.rows(9, 20), draw.weight(20), draw.labels(9, 2)
    expected = l1_similarity_bce(h1, h2, weight, 0.5, target.float(), "none")
    assert torch.equal(l1_similarity_bce(h1, h2, weight, 0.5, target.to(dtype), "none"), expected)


def test_soft_targets_and_pos_weight_are_torchs(room: str) -> None:
    draw = Draw(torch.float64)
    h1, h2, weight = draw.rows(9, 20), draw.rows(9, 20), 0.1 * draw.weight(20)
    target = torch.rand(9, dtype=torch.float64, generator=draw.generator)
    logits = l1_similarity(h1, h2, weight, 0.5)
    for pos_weight in (1.0, 0.3, 4.0):
        for reduction in ("none", "mean", "sum"):
            expected = torch.nn.functional.binary_cross_entropy_with_logits(
                logits, target, reduction=reduction, pos_weight=torch.tensor(pos_weight)
            )
            found = l1_similarity_bce(h1, h2, weight, 0.5, target, reduction, pos_weight=pos_weight)
            torch.testing.assert_close(found, expected)


def test_one_pass_gradients_are_those_of_autograd(room: str) -> None:
    draw = Draw(torch.float32)
    h1, h2, weight = (v.requires_grad_() for v in (draw.rows(300, 20), draw.rows(300, 20), draw.weight(20)))
    bias, target = torch.tensor(0.5, requires_grad=True), draw.labels(300, 2)
    out = (torch.full_like(h1.detach(), 7.0), torch.full_like(h2.detach(), 7.0))
    for reduction in ("mean", "sum"):
        loss = l1_similarity_bce(h1, h2, weight, bias, target, reduction, 1.5)
        expected = (loss.detach(), *torch.autograd.grad(loss, (h1, h2, weight, bias)))
        found = l1_similarity_bce_grad(h1, h2, weight, bias, target, reduction, 1.5, out=out)
        assert found[1] is out[0]
        assert found[2] is out[1]
        for got, want in zip(found, expected, strict=True):
            torch.testing.assert_close(got, want)
            assert not got.requires_grad


def test_out_of_the_matrix_is_filled_and_returned(room: str) -> None:
    q, s, weight = torch.randn(7, 5), torch.randn(9, 5), torch.randn(5)
    out = torch.full((7, 9), float("nan"))
    assert l1_similarity_matrix(q, s, weight, 0.5, out=out) is out
    assert torch.equal(out, l1_similarity_matrix(q, s, weight, 0.5))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32], ids=dtype_name)
def test_indices_of_any_integer_dtype(dtype: torch.dtype, room: str) -> None:
    index = torch.tensor([5, 0, 3])
    expected = triplet_loss(index, index.roll(1), index.roll(2), embeddings=X, reduction="none")
    found = triplet_loss(
        index.to(dtype), index.roll(1).to(dtype), index.roll(2).to(dtype), embeddings=X, reduction="none"
    )
    assert torch.equal(found, expected)


def test_prepared_classes(room: str) -> None:
    support = prepare_support(Y, "cosine", class_index=LABELS, num_classes=3)
    assert len(support) == 6
    assert torch.equal(class_scores(X, support), class_scores(X, Y, LABELS, 3, metric="cosine"))
    assert class_scores(X, Y, LABELS).shape == (6, 2)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_a_prepared_set_is_a_copy(metric: str, room: str) -> None:
    s = Y.clone()
    support = prepare_support(s, metric)
    expected = nearest_support(X, support)
    s.fill_(9.0)
    for got, want in zip(nearest_support(X, support), expected, strict=True):
        assert torch.equal(got, want)


def test_a_set_prepared_by_one_backend_serves_another() -> None:
    """Packed panels have the layout of one instruction set; every other one must notice."""
    from rooms import ROOMS, serving

    draw = Draw(torch.float32, "integers")
    q, s = draw.rows(20, 37), draw.rows(70, 37)

    def prepared(room: str) -> Any:
        with serving(room):
            return prepare_support(s, "sqeuclidean")

    for source in ROOMS:
        support = prepared(source)
        for room in ROOMS:
            with serving(room):
                scores, index = nearest_support(q, support, 3)
                expected_scores, expected_index = nearest_support(q, s, 3, metric="sqeuclidean")
            assert torch.equal(index, expected_index), (source, room)
            assert torch.equal(scores, expected_scores), (source, room)


def test_look_ups_take_embeddings_that_require_gradients(room: str) -> None:
    q, s, weight = (v.clone().requires_grad_() for v in (X, Y, W))
    results: list[Tensor] = [
        *nearest_support(q, s),
        *nearest_support(q, prepare_support(s, weight=weight)),
        class_scores(q, s, LABELS, weight=weight, reduce="prototype"),
        *hardest_pairs(q, LABELS),
    ]
    assert not any(result.requires_grad for result in results)


@pytest.mark.parametrize("transform", [torch.func.grad, lambda f: lambda q: torch.func.jvp(f, (q,), (q,))])
def test_look_ups_refuse_to_be_differentiated(transform: Any) -> None:
    q, s = torch.randn(2, 3), torch.randn(4, 3)
    with pytest.raises(NotImplementedError, match="nearest_support has no derivative"):
        transform(lambda q: nearest_support(q, s)[0].sum())(q)
    with pytest.raises(NotImplementedError, match="class_scores has no derivative"):
        transform(lambda q: class_scores(q, s, torch.tensor([0, 0, 1, 1]), 2).sum())(q)
