"""Two results of the benchmark against each other: what became slower or faster beyond the noise."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from siamese_fast.benchmarking.suite import SCHEMA

Verdict = Literal["slower", "faster", "same", "gone", "new"]
NOISE = 0.05


@dataclass(frozen=True)
class Change:
    """Ours in one row of two results.

    Attributes:
        before, after: median seconds, None where the row was not timed.
        ratio: after over before.
        noise: what a ratio must differ from 1 by: the floor, or the larger spread of the two if that is more.
        elsewhere: after over before of the other contenders (geometric mean); not 1 where the machine itself
            was faster or slower.
    """

    row: str
    before: float | None
    after: float | None
    ratio: float | None
    noise: float
    elsewhere: float | None
    verdict: Verdict

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def load(path: str | Path) -> dict[str, Any]:
    """A result from a file.

    Raises:
        ValueError: the file holds something else.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict) or "rows" not in found or found.get("schema") != SCHEMA:
        raise ValueError(f"{path} is not a result of `siamese-fast bench` of schema {SCHEMA}")
    return found


def save(result: dict[str, Any], path: str | Path) -> None:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def compare(before: dict[str, Any], after: dict[str, Any], noise: float = NOISE) -> list[Change]:
    """Every row of either result; `noise` is the smallest change that counts."""
    old = {row["name"]: row for row in before["rows"]}
    new = {row["name"]: row for row in after["rows"]}
    return [_change(name, old.get(name), new.get(name), noise) for name in [*old, *(set(new) - set(old))]]


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What about the machine or its settings makes two results hard to compare."""
    found = []
    for name in ("processor", "threads", "instruction_set", "device"):
        a, b = before["machine"].get(name), after["machine"].get(name)
        if a != b:
            found.append(f"{name.replace('_', ' ')}: {a} before, {b} after")
    for name, limit in before["limits"].items():
        ratio = after["limits"][name]["rate"] / limit["rate"] if name in after["limits"] else 1.0
        if abs(ratio - 1) > 2 * NOISE:
            found.append(f"the machine's {name} limit is {ratio:.2f} times what it was")
    return found


def _change(name: str, old: dict[str, Any] | None, new: dict[str, Any] | None, floor: float) -> Change:
    before, after = _ours(old), _ours(new)
    if before is None or after is None:
        absent: Verdict = "same" if before is after else "new" if before is None else "gone"
        return Change(name, _median(before), _median(after), None, floor, None, absent)
    ratio = after["median"] / before["median"]
    noise = max(floor, *((entry["high"] - entry["low"]) / entry["median"] for entry in (before, after)))
    verdict: Verdict = "slower" if ratio > 1 + noise else "faster" if ratio < 1 / (1 + noise) else "same"
    return Change(name, before["median"], after["median"], ratio, noise, _elsewhere(old, new), verdict)


def _median(entry: dict[str, Any] | None) -> float | None:
    return None if entry is None else entry["median"]


def _timed(row: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
    return {
        entry["name"]: entry for entry in (row or {"entries": []})["entries"] if entry["status"] == "timed"
    }


def _ours(row: dict[str, Any] | None) -> dict[str, Any] | None:
    return next((entry for entry in _timed(row).values() if entry["column"] == "ours"), None)


def _elsewhere(old: dict[str, Any] | None, new: dict[str, Any] | None) -> float | None:
    before, after = _timed(old), _timed(new)
    shared = [name for name in before if name in after and before[name]["column"] != "ours"]
    if not shared:
        return None
    return math.exp(
        sum(math.log(after[name]["median"] / before[name]["median"]) for name in shared) / len(shared)
    )
