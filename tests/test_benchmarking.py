"""The benchmark's measuring: timing with a fake clock, what becomes of each contender, the gate, memory."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from siamese_fast import ops
from siamese_fast.benchmarking import (
    WORK,
    Aims,
    Contender,
    Cost,
    Limit,
    Limits,
    Plan,
    Settings,
    Work,
    gate,
    harness,
    measure,
    run,
    select,
)
from siamese_fast.benchmarking.contender import disagreement, stage_call
from siamese_fast.benchmarking.isolated import peak_bytes
from siamese_fast.benchmarking.limits import BANDWIDTHS, MIXES
from siamese_fast.benchmarking.suite import run_row
from siamese_fast.testing import CASES

TINY = {"N": 16, "Q": 4, "S": 24, "B": 8, "T": 9, "C": 3, "D": 4, "k": 2}
QUICK = Settings(plan=Plan(seconds=0.01, fewest=2, most=3), memory=False)


class Machine:
    """A clock that only moves when something is called."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[str] = []

    def clock(self) -> float:
        return self.now

    def call(self, name: str, *seconds: float) -> Callable[[], None]:
        """Takes the seconds in turn, then the last of them for ever."""
        rest = list(seconds)

        def run_once() -> None:
            self.log.append(name)
            self.now += rest.pop(0) if len(rest) > 1 else rest[0]

        return run_once


def add(x: torch.Tensor) -> torch.Tensor:
    return (x + 1).sum()


def tiny(*others: Contender, **changes: Any) -> Work:
    ours = Contender("siamese_fast", "ours", lambda given: lambda: add(given["x"]))
    work = Work(
        name="tiny",
        operation="add",
        stage="forward + backward",
        size={"N": 8},
        draw=lambda size: {"x": torch.ones(size["N"])},
        gate=(("hardest_pairs", "euclidean"),),
        contenders=(ours, *others),
        cost=Cost(8, "flop", "N", {"fma": 8}),
        leaves=("x",),
    )
    return replace(work, **changes)


def theirs(name: str = "theirs", **changes: Any) -> Contender:
    return replace(Contender(name, "published", lambda given: lambda: add(given["x"])), **changes)


def entry(row: dict[str, Any], name: str) -> dict[str, Any]:
    return next(found for found in row["entries"] if found["name"] == name)


pytestmark = pytest.mark.usefixtures("threads")


class KnownLimits(Limits):
    """Limits that take no time to measure."""

    def of(self, name: str, amount: float = 0) -> Limit | None:
        return Limit({"fma": 1e9, "abs": 2e9, "sign": 1e9}[name], "a second", "told")


@pytest.fixture
def limits() -> Limits:
    return KnownLimits()


def test_medians_leave_the_warm_up_out() -> None:
    machine = Machine()
    calls = {"a": machine.call("a", 9.0, 0.1), "b": machine.call("b", 5.0, 0.2)}
    times = measure(calls, Plan(seconds=100.0, fewest=5, most=5), machine.clock)
    assert times["a"].median == pytest.approx(0.1)
    assert times["b"].median == pytest.approx(0.2)
    assert times["b"].samples == 5
    assert times["a"].spread == pytest.approx(0)


def test_order_rotates_and_everybody_takes_part() -> None:
    machine = Machine()
    calls = {name: machine.call(name, 0.1) for name in "abc"}
    measure(calls, Plan(seconds=1.0, fewest=3, most=3), machine.clock)
    assert "".join(machine.log[6:]) == "abc" + "bca" + "cab"


def test_fast_calls_are_repeated_within_a_sample() -> None:
    machine = Machine()
    times = measure({"a": machine.call("a", 1e-4)}, Plan(seconds=0.1, fewest=3, most=3), machine.clock)
    assert times["a"].calls == 20
    assert times["a"].median == pytest.approx(1e-4)


def test_slow_calls_take_part_in_fewer_rounds_spread_over_all() -> None:
    machine = Machine()
    calls = {"fast": machine.call("fast", 0.01), "slow": machine.call("slow", 1.0)}
    times = measure(calls, Plan(seconds=4.0, fewest=4, most=100), machine.clock)
    assert times["slow"].samples < times["fast"].samples
    last = max(place for place, name in enumerate(machine.log) if name == "slow")
    assert last > 0.5 * len(machine.log)


def test_very_slow_calls_are_not_warmed_up_twice() -> None:
    machine = Machine()
    times = measure({"slow": machine.call("slow", 30.0)}, Plan(seconds=1.0), machine.clock)
    assert times["slow"].samples == 2
    assert len(machine.log) == 3


def test_garbage_collection_is_restored() -> None:
    def boom() -> None:
        if not gc.isenabled():
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        measure({"a": boom}, Plan(seconds=0.0, fewest=1, most=1))
    assert gc.isenabled()


def test_quartiles() -> None:
    timing = harness.summary([1.0, 2.0, 3.0, 4.0, 100.0])
    assert (timing.low, timing.median, timing.high) == (2.0, 3.0, 4.0)


def test_missing_peer_is_reported() -> None:
    told: list[str] = []
    result = run(
        [tiny(theirs(), theirs("absent", libraries=("no-such-library",)))],
        QUICK,
        lambda text, done, total: told.append(text),
    )
    assert {"schema", "commit", "date", "machine", "versions", "limits", "rows"} <= set(result)
    absent = entry(result["rows"][0], "absent")
    assert absent["status"] == "missing"
    assert "no-such-library" in absent["reason"]
    assert told[-1] == "tiny: timing"
    json.dumps(result, allow_nan=False)


def test_failing_peer_is_reported_and_the_others_timed(limits: Limits) -> None:
    def broken(given: dict[str, torch.Tensor]) -> Callable[[], Any]:
        raise RuntimeError("first line\nsecond line")

    row = run_row(tiny(theirs(), theirs("broken", build=broken)), QUICK, limits)
    assert entry(row, "broken")["reason"] == "RuntimeError: first line"
    assert entry(row, "theirs")["status"] == entry(row, "siamese_fast")["status"] == "timed"


def test_peer_that_needs_too_much_memory_is_left_out(limits: Limits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("siamese_fast.benchmarking.suite.memory_bytes", lambda: 10**9)
    row = run_row(tiny(theirs(needs=lambda size: 10**9 * size["N"])), QUICK, limits)
    assert entry(row, "theirs")["status"] == "left out"
    assert "8.0 GB" in entry(row, "theirs")["reason"]


def test_wrong_answers_are_seen(limits: Limits) -> None:
    wrong = theirs("wrong", build=lambda given: lambda: 2 * add(given["x"]))
    row = run_row(tiny(theirs(), wrong), QUICK, limits)
    assert entry(row, "theirs")["disagreement"] == 0
    assert entry(row, "wrong")["disagreement"] == pytest.approx(1)
    assert disagreement((torch.zeros(2),), (torch.zeros(3),)) == float("inf")


def test_gate_refuses_a_wrong_kernel(monkeypatch: pytest.MonkeyPatch, limits: Limits) -> None:
    def wrong(*arguments: Any, **options: Any) -> torch.Tensor:
        return ops.l1_similarity(*arguments, **options) * (1 + 1e-4)

    monkeypatch.setitem(CASES, "l1_similarity", replace(CASES["l1_similarity"], function=wrong))
    gate.failure.cache_clear()
    try:
        row = run_row(tiny(theirs(), gate=(("l1_similarity", "koch"),)), QUICK, limits)
    finally:
        gate.failure.cache_clear()
    assert row["gate"].startswith("failed: l1_similarity[koch]")
    assert entry(row, "siamese_fast")["status"] == "refused"
    assert "median" not in entry(row, "siamese_fast")
    assert row["ratios"] == {}


def test_ratios_best_share_and_targets(limits: Limits) -> None:
    slow = theirs("slow", build=lambda given: lambda: sum(add(given["x"]) for _ in range(300)) / 300)
    form = theirs("form", column="constructed")
    aims = Aims({"slow": 1.5, "published": 1e6, "absent": 1.0}, share=1.1)
    work = tiny(theirs(), slow, form, aims=aims)
    row = run_row(work, QUICK, limits)
    assert row["best"]["published"]["name"] == "theirs"
    assert row["best"]["constructed"]["name"] == "form"
    assert row["ratios"]["slow"] == pytest.approx(
        entry(row, "slow")["median"] / entry(row, "siamese_fast")["median"]
    )
    assert [target["met"] for target in row["targets"]] == [True, False, False, False]
    assert row["cost"]["share"] == pytest.approx(row["cost"]["rate"] / 1e9)


def test_threads_add_ours_on_one_and_an_aim(limits: Limits) -> None:
    aims = Aims({"theirs": 1.0}, threads=1.8)
    row = run_row(tiny(theirs(), aims=aims), replace(QUICK, threads=2, peers=False), limits)
    assert [found["name"] for found in row["entries"]] == ["siamese_fast", "one thread"]
    assert [(target["against"], target["ratio"]) for target in row["targets"]] == [("one thread", 1.8)]
    assert entry(row, "one thread")["disagreement"] == 0


def test_rows_have_names_of_their_own_and_cases_that_exist() -> None:
    assert len({work.name for work in WORK}) == len({work.slug for work in WORK}) == len(WORK)
    for work in WORK:
        names = [contender.name for contender in work.contenders]
        assert len(set(names)) == len(names)
        assert [contender.column for contender in work.contenders].count("ours") == 1
        assert set(work.aims.ratios) <= {*names, "published", "constructed", "best peer"}
        assert set(work.cost.against) <= {*MIXES, *BANDWIDTHS}
        for case, variant in work.gate:
            assert variant in CASES[case].variants


@pytest.mark.parametrize("work", WORK, ids=lambda work: work.slug)
def test_every_installed_contender_gives_our_answer(work: Work) -> None:
    """At a small size; compiled forms are the same forms, and compiling takes seconds."""
    small = replace(work, size={name: TINY.get(name, count) for name, count in work.size.items()})
    inputs = small.inputs()
    expected = None
    for contender in small.contenders:
        if contender.compiled:
            continue
        try:
            call = stage_call(contender, inputs, small.leaves, small.stage)
            found = contender.answers(call(), inputs)
        except ImportError:
            continue
        if expected is None:
            expected = tuple(value.clone() for value in found)
        tolerance = 1e-4 if small.dtype == torch.float32 else 2e-2
        assert disagreement(found, expected) < tolerance, contender.name


def test_peak_memory_counts_what_a_call_allocates() -> None:
    work = select("pairs + BCE")[0]
    gradients = 2 * 4 * work.size["B"] * work.size["D"]
    assert 0.9 * gradients < peak_bytes(work, work.contenders[0], 1) < 1.5 * gradients


def test_peak_memory_under_a_cap_fails_alone() -> None:
    work = select("pairs + BCE")[0]
    with pytest.raises(RuntimeError):
        peak_bytes(work, work.contenders[0], 1, cap=2**26)
