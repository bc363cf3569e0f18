"""What a row's times come to: its rate and share of the machine's limit, ratios, and which aims are met."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from siamese_fast.benchmarking.limits import Limit
from siamese_fast.benchmarking.ours import ONE_THREAD
from siamese_fast.benchmarking.work import Work

COLUMNS = ("published", "constructed")
BEST_PEER = "best peer"

Entry = Mapping[str, Any]


def of_row(
    work: Work, entries: Mapping[str, Entry], limits: Mapping[str, Limit | None], threads: int
) -> dict[str, Any]:
    """The figures of a row as JSON types.

    Args:
        entries: of every contender by its name; the one whose column is "ours" is held against the others.
        limits: what the row's cost is held against; None where it could not be measured.
    """
    mine = next((entry for entry in entries.values() if entry["column"] == "ours"), None)
    if mine is None or mine["status"] != "timed":
        return {"cost": None, "ratios": {}, "best": {}, "targets": []}
    ours = mine["median"]
    timed = {name: entry for name, entry in entries.items() if entry["status"] == "timed"}
    ratios = {name: entry["median"] / ours for name, entry in timed.items() if entry is not mine}
    best = {}
    for column in COLUMNS:
        names = [name for name in ratios if entries[name]["column"] == column]
        if names:
            name = min(names, key=ratios.__getitem__)
            best[column] = {"name": name, "ratio": ratios[name]}
    cost = _cost(work, ours, limits)
    return {
        "cost": cost,
        "ratios": ratios,
        "best": best,
        "targets": _targets(work, cost, ratios, best, mine, threads),
    }


def _cost(work: Work, seconds: float, limits: Mapping[str, Limit | None]) -> dict[str, Any]:
    """The share is the least time, a sum over what is held against each limit, over the time taken."""
    cost = work.cost
    measured = {name: limit for name, limit in limits.items() if limit is not None}
    known = bool(cost.against) and set(measured) == set(cost.against)
    least = sum(amount / measured[name].rate for name, amount in cost.against.items()) if known else None
    return {
        "unit": cost.unit,
        "counted": cost.counted,
        "rate": cost.amount / seconds,
        "limit": " + ".join(cost.against) or None,
        "limits": {name: limit.to_dict() for name, limit in measured.items()},
        "share": None if least is None else least / seconds,
    }


def _targets(
    work: Work,
    cost: Mapping[str, Any],
    ratios: Mapping[str, float],
    best: Mapping[str, Mapping[str, Any]],
    mine: Entry,
    threads: int,
) -> list[dict[str, Any]]:
    """Each aim with what was reached; one whose contender was not timed is missed, with nothing reached."""
    aims = work.aims
    reached = {**ratios, **{column: found["ratio"] for column, found in best.items()}}
    if best:
        reached[BEST_PEER] = min(found["ratio"] for found in best.values())
    found = [
        _target("ratio", against, wanted, reached.get(against)) for against, wanted in aims.ratios.items()
    ]
    if aims.share is not None:
        found.append(_target("share", "limit", aims.share, cost["share"]))
    if aims.threads is not None and threads > 1:
        wanted = 1 + (aims.threads - 1) * (threads - 1)
        found.append(_target("ratio", ONE_THREAD, wanted, ratios.get(ONE_THREAD)))
    if aims.memory is not None and "peak_bytes" in mine:
        found.append(_target("memory", "peak memory", aims.memory, mine["peak_bytes"]))
    return found


def _target(kind: str, against: str, wanted: float, reached: float | None) -> dict[str, Any]:
    """`ratio` is what is wanted; of memory, at most that."""
    enough = reached is not None and (reached <= wanted if kind == "memory" else reached >= wanted)
    return {"kind": kind, "against": against, "ratio": wanted, "reached": reached, "met": enough}
