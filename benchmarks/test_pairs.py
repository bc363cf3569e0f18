"""Given pairs and their cross-entropy."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from siamese_fast.benchmarking import Work
from siamese_fast.benchmarking.rows import pairs


@pytest.mark.parametrize("work", pairs.ROWS, ids=lambda work: work.slug)
def test_pairs(work: Work, front: Callable[[Work], None]) -> None:
    front(work)
