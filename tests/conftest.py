"""What every test shares: one thread, the rooms that serve operations, and seeded hypothesis."""

from __future__ import annotations

import os
from collections.abc import Iterator

import hypothesis
import pytest
import torch
from rooms import NATIVE_ROOMS, ROOMS, serving

torch.set_num_threads(1)
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None, max_examples=60)
hypothesis.settings.register_profile("explore", deadline=None, max_examples=2000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(params=ROOMS)
def room(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every operation is served by the reference, or by the native kernels of one instruction set."""
    with serving(request.param):
        yield request.param


@pytest.fixture(params=NATIVE_ROOMS)
def native_room(request: pytest.FixtureRequest) -> Iterator[str]:
    with serving(request.param):
        yield request.param


@pytest.fixture
def threads() -> Iterator[None]:
    """Restores the thread count."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
