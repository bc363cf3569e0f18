"""What a step and a look-up cost on W ranks: a model, its check against measurements, and a simulated ring.

    python benchmarks/scaling.py [--check]          writes the tables of docs/scaling.md

The model is stated in docs/scaling.md. Measured constants come from results/distributed.json; those of GPUs
are datasheet values and assumptions, named as such wherever they are used.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent
PAGE = FOLDER.parent / "docs" / "scaling.md"
RESULTS = FOLDER / "results" / "distributed.json"
_MARKED = re.compile(r"(<!-- table: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
WORLDS = (8, 64, 512, 4096)


@dataclass(frozen=True)
class Machine:
    """One rank: mining rate, link to the next rank, memory.

    Attributes:
        flops: multiply-adds x 2 a second while mining.
        traffic: bytes a second of its memory, for what is not arithmetic.
        link: bytes a second to the next rank, over the slowest link of the ring.
        near: the same to a rank of the same node; `node` ranks are in one.
        latency: seconds before the first byte of a message, launch of the kernels of a block included.
        memory: bytes.
    """

    flops: float
    traffic: float
    link: float
    near: float
    node: int
    latency: float
    memory: float


GPU = Machine(flops=0.5 * 67e12, traffic=3.35e12, link=50e9, near=450e9, node=8, latency=20e-6, memory=80e9)
"""H100 SXM by its datasheet: 67 TFLOP/s fp32 (half of it assumed), 3.35 TB/s, 400 Gb/s and 900 GB/s both ways
between GPUs of a node, 80 GB; 20 us a message are assumed. None of it was measured here.
"""

OWN_SHARE, EXTREMES, GRADIENT_BYTES = 0.5, 2, 4
RESIDENT = 7.0
"""Arrays [n, D] that a step of the ring holds besides two blocks: results/distributed.json, at 2,048 rows."""


@dataclass(frozen=True)
class Step:
    """Seconds and bytes of one loss, forward and backward, on each rank."""

    seconds_ring: float
    seconds_gather: float
    mining: float
    sent: float
    memory_ring: float
    memory_gather: float


def block_seconds(m: Machine, rows: float, depth: int, itemsize: int) -> float:
    """Mining one visiting block and comparing its winners with those so far."""
    merged = EXTREMES * 5 * rows * depth * itemsize
    return 2 * rows * rows * depth / m.flops + merged / m.traffic


def transfer_seconds(m: Machine, rows: float, depth: int, itemsize: int, link: float | None = None) -> float:
    return m.latency + rows * (8 + depth * itemsize) / (link or m.link)


def slowest_link(m: Machine, world: int) -> float:
    return m.near if world <= m.node else m.link


def forward_seconds(m: Machine, world: int, rows: float, depth: int = 128, itemsize: int = 4) -> float:
    """Every round of the ring takes the longer of mining a block and receiving the next."""
    mine = block_seconds(m, rows, depth, itemsize)
    send = transfer_seconds(m, rows, depth, itemsize, slowest_link(m, world))
    return max(OWN_SHARE * mine, send) + (world - 2) * max(mine, send) + mine


def cost(m: Machine, world: int, total: float, depth: int = 128, itemsize: int = 4) -> Step:
    """The model of docs/scaling.md."""
    rows, link = total / world, slowest_link(m, world)
    mine, send = block_seconds(m, rows, depth, itemsize), transfer_seconds(m, rows, depth, itemsize, link)
    if world == 1:
        return Step(
            OWN_SHARE * mine,
            OWN_SHARE * mine,
            OWN_SHARE * mine,
            0.0,
            *[RESIDENT * rows * depth * itemsize] * 2,
        )
    mining = (world - 1 + OWN_SHARE) * mine
    home_bytes = 2 * rows * (world - 1) / world * (8 + depth * GRADIENT_BYTES)
    home = min(world - 1, 2 * rows) * m.latency + home_bytes / link
    block = rows * (8 + depth * itemsize)
    memory = RESIDENT * rows * depth * itemsize + 2 * block
    return Step(
        seconds_ring=forward_seconds(m, world, rows, depth, itemsize) + home,
        seconds_gather=(world - 1) * send + mining + home,
        mining=mining,
        sent=(world - 1) * block + home_bytes,
        memory_ring=memory,
        memory_gather=memory + world * block,
    )


def simulate(
    m: Machine,
    world: int,
    rows: float,
    depth: int = 128,
    itemsize: int = 4,
    jitter: float = 0.0,
    seed: int = 0,
) -> float:
    """Seconds until the last rank has mined all blocks, rank by rank and round by round.

    A round of a rank ends when it has mined its block, sent it, and received the next; a transfer begins when
    both ends are in that round. `jitter` is the standard deviation of the time to mine a block, relative to
    it.
    """
    random = np.random.default_rng(seed)
    mine = block_seconds(m, rows, depth, itemsize)
    crosses_node = np.arange(world) % m.node == m.node - 1
    links = np.where(crosses_node, m.link, m.near) if world > m.node else np.full(world, m.near)
    send = np.array([transfer_seconds(m, rows, depth, itemsize, link) for link in links])  # to the next rank
    begun = np.zeros(world)
    for step in range(world):
        share = OWN_SHARE if step == 0 else 1.0
        mined = begun + share * mine * np.maximum(0.0, 1 + jitter * random.standard_normal(world))
        if step == world - 1:
            return float(mined.max())
        arrived = np.maximum(begun, np.roll(begun, -1)) + send  # at the next rank
        begun = np.maximum(mined, np.maximum(arrived, np.roll(arrived, 1)))
    raise AssertionError("unreachable")


def lookup_seconds(
    m: Machine, world: int, supports: float, queries: int, depth: int = 128, itemsize: int = 2
) -> float:
    """Exact top-1 of a batch of queries: read the shard once, or compute, whichever is longer; then merge."""
    share = supports / world
    compute = 2 * queries * share * depth / m.flops
    return max(compute, share * depth * itemsize / m.traffic) + world * (
        m.latency / 8 + queries * 12 / m.link
    )


def checked() -> list[str]:
    """Predicted and measured CPU seconds of a step of the ring, all ranks together."""
    found = _results()
    if not found:
        return []
    lines = _header("W", "rows a rank", "predicted", "measured", "measured / predicted")
    for size, rows, predicted, measured in predictions(found):
        lines.append(
            _row(
                str(size), f"{rows:,}", _seconds(predicted), _seconds(measured), f"{measured / predicted:.2f}"
            )
        )
    return lines


def predictions(found: dict[str, Any]) -> list[tuple[int, int, float, float]]:
    """(W, rows, predicted, measured): all ranks share a core, so costs add up and nothing overlaps.

    The fixed cost of a step (checks, small collectives, Python) is what the smallest batch takes.
    """
    depth, rate = found["D"], found["parts"]["1"]["flops_a_second"]
    own = found["parts"]["1"]["own_block_share"]
    rows_of_table = []
    for size in (1, 2, 4):
        ring = [one for one in found["steps"][str(size)] if one["contender"] == "ring"]
        byte = 0.0
        if size > 1:
            first, last = (found["parts"][str(size)]["rounds"][i] for i in (0, -1))
            byte = (last["least_cpu_seconds"] - first["least_cpu_seconds"]) / (last["message_bytes"] * size)

        def variable(rows: int, size: int = size, byte: float = byte) -> float:
            mining = size * (size - 1 + own) * 2 * rows * rows * depth / rate
            moved = size * rows * ((size - 1) * (8 + 4 * depth) + 2 * (8 + 4 * depth) * (size - 1) / size)
            return mining + byte * moved

        fixed = ring[0]["least_cpu_seconds"] - variable(ring[0]["rows"])
        rows_of_table += [
            (size, one["rows"], fixed + variable(one["rows"]), one["least_cpu_seconds"]) for one in ring[1:]
        ]
    return rows_of_table


def simulated() -> list[str]:
    """The closed form against the simulated ring, without and with jitter."""
    lines = _header("W", "rows a rank", "closed form", "simulated", "simulated, 5 % jitter", "20 % jitter")
    for world in WORLDS:
        for rows in (256, 4096):
            times = [simulate(GPU, world, rows, jitter=jitter) for jitter in (0.0, 0.05, 0.2)]
            closed = forward_seconds(GPU, world, rows)
            lines.append(_row(str(world), f"{rows:,}", _seconds(closed), *map(_seconds, times)))
    return lines


def scaled() -> list[str]:
    """A loss on GPUs: time, how much of the exchange shows, bytes and memory."""
    lines = _header(
        "N", "W", "ring", "gather", "mining alone", "sent a rank", "memory, ring", "memory, gather"
    )
    for total in (1e5, 1e6, 1e7, 1e8, 1e9):
        for world in WORLDS:
            step = cost(GPU, world, total)
            times = map(_seconds, (step.seconds_ring, step.seconds_gather, step.mining))
            sizes = map(_bytes, (step.sent, step.memory_ring, step.memory_gather))
            lines.append(_row(f"{total:.0e}".replace("e+0", "e"), str(world), *times, *sizes))
    return lines


def looked_up() -> list[str]:
    """Exact look-up of a batch of 256 queries in S supports, float16."""
    lines = _header("S", *(f"W = {world}" for world in (1, *WORLDS)))
    for supports in (1e6, 1e7, 1e8, 1e9, 1e10):
        cells = []
        for world in (1, *WORLDS):
            fits = supports / world * 128 * 2 < 0.8 * GPU.memory
            cells.append(_seconds(lookup_seconds(GPU, world, supports, 256)) if fits else "does not fit")
        lines.append(_row(f"{supports:.0e}".replace("e+0", "e").replace("e+", "e"), *cells))
    return lines


def strategies() -> list[str]:
    """Ring against gather, measured: what `strategy="auto"` rests on."""
    found = _results()
    if not found:
        return []
    lines = _header("W", "rows a rank", "all blocks", "ring, CPU s", "gather, CPU s", "ring / gather")
    for size in (2, 4):
        timed = {
            (one["contender"], one["rows"]): one["least_cpu_seconds"] for one in found["steps"][str(size)]
        }
        for rows in sorted({rows for _, rows in timed}):
            ring, gather = timed["ring", rows], timed["gather", rows]
            total = size * rows * (8 + 4 * found["D"])
            lines.append(
                _row(
                    str(size),
                    f"{rows:,}",
                    _bytes(total),
                    _seconds(ring),
                    _seconds(gather),
                    f"{ring / gather:.2f}",
                )
            )
    return lines


TABLES: dict[str, Callable[[], list[str]]] = {
    "checked": checked,
    "simulated": simulated,
    "scaled": scaled,
    "looked_up": looked_up,
    "strategies": strategies,
}


def filled(text: str) -> str:
    """The page with every marked table made anew."""
    return _MARKED.sub(
        lambda match: match[1] + "".join(f"{line}\n" for line in TABLES[match[2]]()) + match[4], text
    )


def _results() -> dict[str, Any]:
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def _header(*columns: str) -> list[str]:
    return [_row(*columns), _row(*["---:"] * len(columns))]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _seconds(value: float) -> str:
    for unit, size in (("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 1e-3)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-6:.3g} us"


def _bytes(value: float) -> str:
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e3:.3g} kB"


def main() -> None:
    before = PAGE.read_text()
    after = filled(before)
    if "--check" in sys.argv[1:]:
        sys.exit("docs/scaling.md is not what benchmarks/scaling.py says" if after != before else 0)
    PAGE.write_text(after)


if __name__ == "__main__":
    main()
