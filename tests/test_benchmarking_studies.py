"""The benchmark's studies: growth under a cap, whole training steps; processes of their own."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from siamese_fast.benchmarking import growth, select, steps, study_report
from siamese_fast.benchmarking.growth import Budget, exponent
from siamese_fast.benchmarking.isolated import NotSpent, Spent, measure, row_task, spend

pytestmark = pytest.mark.usefixtures("threads")

Task = dict[str, Any]


def grows(task: Task, cap: int | None, timeout: float) -> Spent:
    """Quadratic time, linear memory; ours survives everything, the others 1000 rows."""
    assert cap is not None
    n = task["size"]["N"]
    if task["contender"] != "siamese_fast" and n > 1000:
        raise NotSpent("memory", "no more memory")
    return Spent(10 * n, 1e-9 * n * n)


def test_exponent_is_that_of_a_power_over_the_last_sizes() -> None:
    points = [(1.0, 100.0), *((x, 7 * x**1.5) for x in (10.0, 20.0, 40.0))]
    assert exponent(points) == pytest.approx(1.5)
    assert exponent(points[:2]) is None
    assert exponent([(1, 0), (2, 0), (4, 0)]) is None


def test_growth_finds_exponents_and_what_ended_each() -> None:
    found = growth.study(Budget(cap=10**9), sizes=(64, 256, 1024, 4096), spend=grows)
    json.dumps(found, allow_nan=False)
    named = {one["name"]: one for one in found["contenders"]}
    assert named["siamese_fast"]["time_exponent"] == pytest.approx(2)
    assert named["siamese_fast"]["memory_exponent"] == pytest.approx(1)
    assert named["siamese_fast"]["largest"] == 4096
    assert named["siamese_fast"]["ended"] is None
    assert named["mine, gather"]["largest"] == 256
    assert named["mine, gather"]["ended"] == "memory: no more memory"
    assert found["cap_bytes"] == 10**9


def test_growth_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "version_of", lambda library: None)
    found = growth.study(Budget(cap=10**9), sizes=(64,), spend=grows)
    named = {one["name"]: one for one in found["contenders"]}
    assert named["pytorch-metric-learning"]["ended"].startswith("missing: pytorch-metric-learning")
    assert named["pytorch-metric-learning"]["points"] == []


def test_growth_ends_with_its_time() -> None:
    found = growth.study(Budget(seconds=0.0, cap=10**9), sizes=(64,), spend=grows)
    assert all(not one["points"] for one in found["contenders"])
    assert "the study's time was over" in found["contenders"][0]["ended"]


def steps_spend(seconds: Callable[[Task], float]) -> Callable[..., Spent]:
    return lambda task, cap, timeout: Spent(task["rows"], seconds(task))


def test_steps_say_where_the_loss_is_not_the_bottleneck() -> None:
    loss = {"no loss": 0.0, "siamese_fast": 0.001, "pytorch-metric-learning": 0.01}

    def seconds(task: Task) -> float:
        return loss[task["loss"]] + (1.0 if task["encoder"].startswith("Conv") else 0.01)

    found = steps.study(Budget(cap=10**9), sizes=(64, 128), spend=steps_spend(seconds))
    json.dumps(found, allow_nan=False)
    rows = {(row["encoder"], row["N"]): row for row in found["comparison"]}
    dense, deep = (rows[encoder, 128] for encoder in steps.ENCODERS)
    assert dense["bottleneck"] is True
    assert deep["bottleneck"] is False
    assert dense["faster"] == pytest.approx(0.02 / 0.011)
    assert dense["loss_share"]["pytorch-metric-learning"] == pytest.approx(0.5)


def test_steps_keep_the_largest_batch_of_each() -> None:
    def starves(task: Task, cap: int | None, timeout: float) -> Spent:
        if task["loss"] == "pytorch-metric-learning" and task["rows"] > 64:
            raise NotSpent("memory", "no more")
        return Spent(1, 1.0)

    found = steps.study(Budget(cap=10**9), sizes=(64, 128, 256), spend=starves)
    largest = {(one["encoder"], one["loss"]): one["points"][-1]["N"] for one in found["entries"]}
    assert {largest[key] for key in largest if key[1] == "pytorch-metric-learning"} == {64}
    assert {largest[key] for key in largest if key[1] != "pytorch-metric-learning"} == {256}
    assert found["comparison"][-1]["faster"] is None


@pytest.mark.parametrize("encoder", steps.ENCODERS)
@pytest.mark.parametrize("loss", steps.LOSSES)
def test_a_step_trains(encoder: str, loss: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if steps.LOSSES[loss].libraries:
        pytest.importorskip(steps.LOSSES[loss].libraries[0].replace("-", "_"))
    built: list[torch.nn.Module] = []
    make = steps.ENCODERS[encoder]

    def remembered() -> torch.nn.Module:
        built.append(make())
        return built[-1]

    monkeypatch.setitem(steps.ENCODERS, encoder, remembered)
    call = steps.step_call(steps.step_task(encoder, loss, 16, 1))
    before = [value.detach().clone() for value in built[0].parameters()]
    call()
    assert any(not torch.equal(old, new) for old, new in zip(before, built[0].parameters(), strict=True))


@pytest.mark.parametrize("study", ["growth", "steps"])
def test_studies_are_shown_and_drawn(study: str, tmp_path: Path) -> None:
    if study == "growth":
        found = growth.study(Budget(cap=10**9), sizes=(64, 256, 1024), spend=grows)
    else:
        found = steps.study(Budget(cap=10**9), sizes=(64, 128), spend=steps_spend(lambda task: 1.0))
    screen = io.StringIO()
    study_report.show(found, Console(width=220, file=screen))
    words = (
        ("no more memory", "mine, gather") if study == "growth" else ("not the bottleneck", "MLP 784-512-128")
    )
    assert all(word in screen.getvalue() for word in words)
    assert len(study_report.markdown(found)) > 3
    pytest.importorskip("matplotlib")
    (path,) = study_report.draw(found, tmp_path)
    assert path.name == f"{study}.png"


def test_measure_counts_time_and_calls_few_of_the_slow() -> None:
    calls: list[int] = []
    assert measure(lambda: calls.append(1)).seconds < 1
    assert len(calls) == 5


def test_a_process_tells_its_bytes_and_seconds_or_what_stopped_it() -> None:
    work = select("pairs + BCE 65536x128 out=")[0]
    task = row_task(work, work.contenders[0], 1)
    small = {**task, "size": {"B": 64, "D": 8}}
    spent = spend(small, None, 300)
    assert 0 < spent.seconds < 10
    with pytest.raises(NotSpent) as starved:
        spend(task, 2**26, 300)
    assert starved.value.cause == "memory"
    with pytest.raises(NotSpent) as late:
        spend(small, None, 0.01)
    assert late.value.cause == "time"
    with pytest.raises(NotSpent) as wrong:
        spend({**small, "contender": "nobody"}, None, 300)
    assert wrong.value.cause == "error"
