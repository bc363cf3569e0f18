"""The cost model of many ranks: its simulated ring, its predictions, and its page."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from test_packaging import ROOT, script

scaling = script("scaling")
RESULTS = json.loads((ROOT / "benchmarks" / "results" / "distributed.json").read_text())


@pytest.mark.parametrize("world", [2, 3, 8, 64, 256])
@pytest.mark.parametrize("rows", [16, 1024, 16384])
def test_the_closed_form_is_the_ring_without_jitter(world: int, rows: int) -> None:
    """Also where mining, the link or the latency dominates."""
    expected = scaling.forward_seconds(scaling.GPU, world, rows)
    assert scaling.simulate(scaling.GPU, world, rows) == pytest.approx(expected, rel=0.02)
    slow = scaling.simulate(scaling.GPU, world, rows, jitter=0.1)
    assert 0.98 * expected <= slow <= 1.5 * expected


def test_one_slow_link_sets_the_pace() -> None:
    machine = replace(scaling.GPU, node=1, link=1e9)
    assert scaling.simulate(machine, 16, 1024) > 10 * scaling.simulate(scaling.GPU, 16, 1024)


def test_memory_of_the_ring_falls_with_ranks_and_that_of_the_gather_does_not() -> None:
    few, many = (scaling.cost(scaling.GPU, world, 1e6) for world in (8, 512))
    assert many.memory_ring < few.memory_ring / 60
    assert many.memory_gather > few.memory_gather / 3
    assert many.seconds_ring <= many.seconds_gather


def test_bytes_that_were_measured_are_those_of_the_model() -> None:
    """Of all ranks together; the loopback adds headers, and the small collectives of a step."""
    depth = RESULTS["D"]
    for size in (2, 4):
        for one in RESULTS["steps"][str(size)]:
            if one["contender"] == "ring" and one["rows"] >= 1024:
                at_least = size * (size - 1) * one["rows"] * (8 + 4 * depth)
                at_most = at_least + size * 2 * one["rows"] * (8 + 4 * depth)
                assert at_least < one["bytes"] < 1.03 * at_most + 1e5, (size, one)


def test_steps_that_were_measured_are_predicted() -> None:
    for size, rows, predicted, measured in scaling.predictions(RESULTS):
        assert 0.5 < measured / predicted < 2, (size, rows, predicted, measured)


def test_the_page_is_what_the_model_says() -> None:
    page = (ROOT / "docs" / "scaling.md").read_text()
    assert scaling.filled(page) == page and page.count("<!-- table:") == len(scaling.TABLES)
