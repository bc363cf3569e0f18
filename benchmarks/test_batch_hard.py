"""The batch-hard triplet loss, forward and backward."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from siamese_fast.benchmarking import Work, select


@pytest.mark.parametrize("work", select("batch-hard", full=True), ids=lambda work: work.slug)
def test_batch_hard(work: Work, front: Callable[[Work], None]) -> None:
    front(work)
