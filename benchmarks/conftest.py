"""pytest-benchmark fronts over the rows of `siamese_fast.benchmarking.rows`.

    python -m pytest benchmarks [-k nearest-S20] [--benchmark-json FILE]

Each row is gated and measured against its peers as `siamese-fast bench` does it; ratios and the share of the
machine's limit are in `extra_info`. The benchmark that pytest-benchmark itself times is ours alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from siamese_fast.benchmarking import Limits, Plan, Settings, Work
from siamese_fast.benchmarking.contender import stage_call
from siamese_fast.benchmarking.machine import limit_threads
from siamese_fast.benchmarking.suite import run_row

Front = Callable[[Work], None]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("siamese_fast")
    group.addoption("--full", action="store_true", help="every row, as `siamese-fast bench --full`")
    group.addoption("--threads", type=int, default=1, help="CPU threads for every contender")
    group.addoption("--seconds", type=float, default=6.0, help="to time a row for, all contenders together")


@pytest.fixture(scope="session")
def settings(request: pytest.FixtureRequest) -> Settings:
    threads = request.config.getoption("--threads")
    limit_threads(threads)
    return Settings(threads, Plan(request.config.getoption("--seconds")), memory=False)


@pytest.fixture(scope="session")
def limits(settings: Settings) -> Limits:
    return Limits()


@pytest.fixture
def front(request: pytest.FixtureRequest, benchmark: Any, settings: Settings, limits: Limits) -> Front:
    """Gate and measure a row with its peers, then let pytest-benchmark time ours."""

    def measure(work: Work) -> None:
        if work.full and not request.config.getoption("--full"):
            pytest.skip("only with --full")
        row = run_row(work, settings, limits)
        assert row["gate"] == "passed", row["gate"]
        benchmark.extra_info.update(
            {name: row[name] for name in ("size", "cost", "ratios", "best", "targets")}
        )
        benchmark.extra_info["not timed"] = {
            entry["name"]: f"{entry['status']}: {entry['reason']}"
            for entry in row["entries"]
            if entry["status"] != "timed"
        }
        ours = next(contender for contender in work.contenders if contender.column == "ours")
        benchmark.group = work.operation
        benchmark(stage_call(ours, work.inputs(), work.leaves, work.stage))

    return measure
