"""Batch-hard mining and its triplet loss."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from siamese_fast.benchmarking import Work
from siamese_fast.benchmarking.rows import triplets


@pytest.mark.parametrize("work", triplets.ROWS, ids=lambda work: work.slug)
def test_batch_hard(work: Work, front: Callable[[Work], None]) -> None:
    front(work)
