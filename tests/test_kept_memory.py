"""Memory that operations keep for their next call: reused when it is free, never while somebody holds it."""

from __future__ import annotations

import pytest
import torch

from siamese_fast import backend, distance_matrix, l1_similarity, similarity_matrix

ROWS = 1200  # a matrix of 5.8 MB: large enough to be kept

pytestmark = pytest.mark.skipif(not backend.instruction_sets(), reason="needs the C++ extension")


def rows(seed: int) -> torch.Tensor:
    return torch.randn(ROWS, 8, generator=torch.Generator().manual_seed(seed))


def kept_address() -> int:
    """Where a result lay that nobody holds any more."""
    backend.release_memory()
    return distance_matrix(rows(0), rows(1)).data_ptr()


def test_the_next_large_result_takes_the_memory_of_one_that_is_gone() -> None:
    before = kept_address()
    again = distance_matrix(rows(2), rows(3))
    assert again.data_ptr() == before
    assert torch.equal(again, distance_matrix(rows(2), rows(3)))


def test_results_that_are_held_share_nothing() -> None:
    first = distance_matrix(rows(0), rows(1))
    copy = first.clone()
    second = distance_matrix(rows(2), rows(3))
    assert second.data_ptr() != first.data_ptr()
    assert torch.equal(first, copy)


def test_a_view_holds_the_memory() -> None:
    row = distance_matrix(rows(0), rows(1))[7]
    copy = row.clone()
    distance_matrix(rows(2), rows(3))
    assert torch.equal(row, copy)


def test_gradients_hold_their_memory() -> None:
    h = torch.randn(20_000, 64, requires_grad=True)
    l1_similarity(h, torch.zeros_like(h), torch.ones(64)).sum().backward()
    assert h.grad is not None
    copy = h.grad.clone()
    other = torch.randn(20_000, 64, requires_grad=True)
    l1_similarity(other, torch.zeros_like(other), -torch.ones(64)).sum().backward()
    assert torch.equal(h.grad, copy)


def test_a_result_is_an_ordinary_tensor() -> None:
    result = similarity_matrix(rows(0), rows(1), "dot")
    assert result.is_contiguous()
    assert not result._is_view()
    assert result.untyped_storage().nbytes() == 4 * ROWS * ROWS
    result.share_memory_()
    assert torch.equal(result, similarity_matrix(rows(0), rows(1), "dot"))


def test_release_gives_it_back() -> None:
    kept_address()
    assert backend.release_memory() >= 4 * ROWS * ROWS
    assert backend.release_memory() == 0
