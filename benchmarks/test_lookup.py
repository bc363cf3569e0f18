"""Nearest supports and scores per class."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from siamese_fast.benchmarking import Work, select


@pytest.mark.parametrize(
    "work", [*select("nearest", full=True), *select("class", full=True)], ids=lambda work: work.slug
)
def test_lookup(work: Work, front: Callable[[Work], None]) -> None:
    front(work)
