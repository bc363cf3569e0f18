"""Overflow, infinities and damaged or shared buffers: where a kernel could answer wrongly or read too far."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from siamese_fast import distance_matrix, l1_similarity_bce_grad, nearest_support, prepare_support

pytestmark = pytest.mark.sanitize

NAN, INF = float("nan"), float("inf")


def test_a_query_whose_norm_overflows_still_finds_its_own_copy(room: str) -> None:
    supports = torch.tensor([0.0, 1e19])[:, None].expand(2, 4).contiguous()
    scores, index = nearest_support(supports[1:], supports)
    assert index.tolist() == [[1]]
    assert scores.tolist() == [[0.0]]


def test_more_neighbours_than_supports_are_padded(room: str) -> None:
    scores, index = nearest_support(torch.zeros(1, 3), torch.eye(3)[:2], k=4)
    assert index.tolist() == [[0, 1, -1, -1]]
    assert scores[0, 2:].tolist() == [-INF, -INF]


def test_a_damaged_packed_set_is_not_read(native_room: str) -> None:
    support = prepare_support(torch.randn(40, 8))
    expected = nearest_support(torch.ones(3, 8), support.rows)
    for packed in (support.packed[:1], support.packed[:-4], support.packed.float()):
        found = nearest_support(torch.ones(3, 8), dataclasses.replace(support, packed=packed))
        assert torch.equal(found[1], expected[1])


def test_an_infinite_row_has_the_gradient_of_its_pairs_alone(room: str) -> None:
    # 7 rows: a group of rows that is not full must add nothing, which 0 * inf is not.
    x = torch.zeros(7, 2, requires_grad=True)
    y = torch.tensor([[INF, 1.0]], requires_grad=True)
    distance_matrix(x, y, "sqeuclidean").sum().backward()
    assert y.grad is not None
    assert y.grad.tolist() == [[INF, 14.0]]


def test_a_nan_gradient_is_kept_at_distance_zero(room: str) -> None:
    x = torch.ones(2, 2, requires_grad=True)
    grad = torch.tensor([[NAN, 1.0], [1.0, 1.0]])
    (found,) = torch.autograd.grad(distance_matrix(x, torch.ones(2, 2)), x, grad)
    assert found[0].isnan().all()
    assert (found[1] == 0).all()


def test_writing_to_out_is_seen_by_autograd(room: str) -> None:
    h = torch.randn(3, 4)
    saved, other = torch.ones(3, 4), torch.ones(3, 4)
    product = (torch.ones(3, 4, requires_grad=True) * saved).sum()
    l1_similarity_bce_grad(h, h, torch.ones(4), None, torch.ones(3), out=(saved, other))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()
