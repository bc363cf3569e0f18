"""The Koch head over all pairs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from siamese_fast.benchmarking import Work, select


@pytest.mark.parametrize("work", select("koch", full=True), ids=lambda work: work.slug)
def test_koch(work: Work, front: Callable[[Work], None]) -> None:
    front(work)
