"""The limits of the machine, and what rows are held against."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from siamese_fast import backend, ops
from siamese_fast.benchmarking import WORK, Aims, Contender, Cost, Limit, Limits, figures, limits, select
from siamese_fast.benchmarking.work import Work

pytestmark = pytest.mark.usefixtures("threads")
native = pytest.mark.skipif(backend.instruction_set() is None, reason="the probes are native")
SPAN = 16 * 2**20
FASTEST = 6e9 * 16 * 4
"""Elements a second that no thread reaches: four vectors of 16 at 6 GHz."""


@native
@pytest.mark.parametrize("instruction_set", backend.instruction_sets())
def test_every_instruction_set_has_its_probes(instruction_set: str) -> None:
    found = Limits(seconds=0.001)
    with backend.use_instruction_set(instruction_set):
        for name in (*limits.MIXES, *limits.BANDWIDTHS):
            limit = found.of(name, SPAN)
            assert limit is not None
            assert 0 < limit.rate < FASTEST * (2 if limit.unit == "flop/s" else 1)
    assert {limit.unit for limit in found.found.values()} == {"flop/s", "element/s", "byte/s"}


@native
def test_a_copy_probe_copies() -> None:
    from siamese_fast import _native

    source = limits._aligned(4096).copy_(torch.arange(4096.0))
    for kind in (5, 6):
        for streams in (1, 2, 4):
            target = limits._aligned(4096).zero_()
            _native.probe(kind, 1, 4096, streams, source.data_ptr(), target.data_ptr())
            assert torch.equal(source, target)


def test_the_best_of_all_occasions_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = iter((2.0, 3.0, 1.0))
    monkeypatch.setattr(limits, "_mix", lambda name, seconds: Limit(next(rates), "flop/s", ""))
    monkeypatch.setattr(backend, "instruction_set", lambda: "some")
    found = Limits()
    assert [found.of("fma").rate for _ in range(3)] == [2.0, 3.0, 3.0]  # type: ignore[union-attr]


def test_a_bandwidth_belongs_to_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_bandwidth", lambda name, span, seconds: Limit(span, "byte/s", ""))
    monkeypatch.setattr(backend, "instruction_set", lambda: "some")
    found = Limits()
    for amount in (1, 60 * 2**20, 2**40):
        found.of("read", amount)
    assert list(found.found) == ["read 16 MiB", "read 32 MiB", "read 1024 MiB"]


def test_without_the_extension_there_are_no_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "instruction_set", lambda: None)
    assert Limits().of("fma") is None
    assert Limits(0.001).of("product") is not None


def test_an_unknown_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="limit must be one of fma"):
        Limits().of("luck")


def row(cost: Cost, aims: Aims) -> Work:
    ours = Contender("siamese_fast", "ours", lambda given: lambda: None)
    return replace(WORK[0], cost=cost, aims=aims, contenders=(ours,))


def timed(column: str, median: float, **more: Any) -> dict[str, Any]:
    return {"column": column, "status": "timed", "median": median, **more}


def test_times_at_several_limits_add_up() -> None:
    cost = Cost(4, "byte", "", {"read": 2, "copy": 2})
    rates = {"read": Limit(2.0, "byte/s", ""), "copy": Limit(1.0, "byte/s", "")}
    found = figures.of_row(row(cost, Aims(share=0.5)), {"siamese_fast": timed("ours", 4.0)}, rates, 1)
    assert found["cost"]["share"] == pytest.approx(3 / 4)
    assert found["cost"]["rate"] == 1.0
    assert found["targets"] == [
        {"kind": "share", "against": "limit", "ratio": 0.5, "reached": pytest.approx(0.75), "met": True}
    ]


def test_a_limit_that_is_not_known_leaves_no_share() -> None:
    found = figures.of_row(
        row(Cost(4, "flop", "", {"fma": 4}), Aims(share=0.5)),
        {"siamese_fast": timed("ours", 1.0)},
        {"fma": None},
        1,
    )
    assert found["cost"]["share"] is None
    assert found["targets"][0]["met"] is False


def test_the_best_peer_is_the_fastest_of_both_columns() -> None:
    entries = {
        "siamese_fast": timed("ours", 1.0, peak_bytes=50),
        "library": timed("published", 3.0),
        "form": timed("constructed", 2.0),
        "one thread": timed("baseline", 1.5),
    }
    aims = Aims({"best peer": 2.5}, memory=60, threads=1.8)
    found = figures.of_row(row(Cost(1, "flop", ""), aims), entries, {}, 2)
    assert {target["against"]: (target["reached"], target["met"]) for target in found["targets"]} == {
        "best peer": (2.0, False),
        "one thread": (1.5, False),
        "peak memory": (50, True),
    }


def test_a_hub_is_the_hardest_negative_of_all() -> None:
    work = select("hub")[0]
    drawn = work.draw({"N": 1024, "D": 128})
    negative = ops.hardest_pairs(drawn["x"], drawn["labels"])[1]
    elsewhere = drawn["labels"] != drawn["labels"][0]
    assert bool((negative[elsewhere] == 0).all())
    assert not torch.equal(drawn["x"], drawn["other"])
