"""The Koch head over all pairs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from siamese_fast.benchmarking import Work
from siamese_fast.benchmarking.rows import koch


@pytest.mark.parametrize("work", koch.ROWS, ids=lambda work: work.slug)
def test_koch(work: Work, front: Callable[[Work], None]) -> None:
    front(work)
