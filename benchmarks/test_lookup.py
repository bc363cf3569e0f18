"""Nearest supports and scores per class."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from siamese_fast.benchmarking import Work
from siamese_fast.benchmarking.rows import lookup


@pytest.mark.parametrize("work", lookup.ROWS, ids=lambda work: work.slug)
def test_lookup(work: Work, front: Callable[[Work], None]) -> None:
    front(work)
