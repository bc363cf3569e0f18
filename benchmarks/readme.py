"""The README's tables, from the JSON files in results/: nothing measured is typed by hand.

Each table stands between `<!-- table: NAME -->` and `<!-- end -->`. `--check` writes nothing and fails where
the README is not what the results say.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from siamese_fast.benchmarking import comparison, report

FOLDER = Path(__file__).parent
README = FOLDER.parent / "README.md"
QUALITY = FOLDER / "results" / "quality.json"
SPEED = FOLDER / "results" / "speed.json"
_MARKED = re.compile(r"(<!-- table: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
_METHODS = {
    "softmax": "pairs: Koch head, in-batch softmax",
    "triplets": "triplets: batch-hard, soft margin",
    "bce": "pairs: Koch head, cross-entropy, hardest negatives",
    "pairs": "pairs: Koch head, cross-entropy, as published",
}


def glyphs() -> list[str]:
    """Trained on glyphs: real digits and held-out alphabets."""
    found = read(QUALITY)
    lines = header(
        "trained on printed letters",
        "handwritten digits, 10-way",
        "held-out alphabets, 20-way",
        "CPU minutes",
    )
    for method, entry in entries(found, "glyphs"):
        cells = (cell(entry, "digits_accuracy"), cell(entry, "letters_accuracy"), minutes(entry))
        lines.append(row(_METHODS[method], *cells))
    if pixels := found.get("raw_pixels"):
        cells = (f"{100 * pixels[name]:.1f} %" for name in ("digits_accuracy", "letters_accuracy"))
        lines.append(row("nearest raw pixels", *cells, "-"))
    return lines


def omniglot() -> list[str]:
    """Trained on Omniglot's small background set: error on the official runs."""
    found = read(QUALITY)
    lines = header(
        "trained on 136 characters", "error, one view", "error, turned and jittered views", "CPU minutes"
    )
    for method, entry in entries(found, "omniglot"):
        cells = (cell(entry, "runs_error"), cell(entry, "runs_error_views"), minutes(entry))
        lines.append(row(_METHODS[method], *cells))
    for name, page in (("runs_error", "whole page"), ("runs_error_cut", "cut to the ink")):
        if name in (pixels := found.get("raw_pixels", {})):
            lines.append(row(f"nearest raw pixels, {page}", f"{100 * pixels[name]:.1f} %", "-", "-"))
    return lines


def machine() -> list[str]:
    """Where the accuracies were measured, and which of them if not all in one place."""
    places: dict[str, list[str]] = {}
    for name, entry in read(QUALITY).get("recipes", {}).items():
        device = entry["device"]
        where = f"{device['processor']} ({device['instruction_set']}), torch {device['libraries']['torch']}"
        places.setdefault(where, []).append(name)
    if not places:
        return []
    if len(places) == 1:
        return [f"Measured on one core of {next(iter(places))}."]
    parts = (f"{', '.join(names)} on {where}" for where, names in places.items())
    return [f"Measured on one core: {'; '.join(parts)}."]


def speed() -> list[str]:
    """Every row of the benchmark, from results/speed.json."""
    return report.markdown(comparison.load(SPEED)) if SPEED.exists() else []


def speed_machine() -> list[str]:
    """Where the times were measured."""
    return [f"Measured on {report.where(comparison.load(SPEED))}."] if SPEED.exists() else []


TABLES: dict[str, Callable[[], list[str]]] = {
    "machine": machine,
    "glyphs": glyphs,
    "omniglot": omniglot,
    "speed": speed,
    "speed_machine": speed_machine,
}


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


def entries(found: dict[str, Any], kind: str) -> list[tuple[str, dict[str, Any]]]:
    """(method, results) of every recipe on that data with a result, in the order of `_METHODS`."""
    recipes = found.get("recipes", {})
    named = [(method, recipes.get(f"{kind}-{method}", {})) for method in _METHODS]
    return [(method, entry) for method, entry in named if entry.get("runs")]


def header(*columns: str) -> list[str]:
    return [row(*columns), row("---", *["---:"] * (len(columns) - 1))]


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def cell(entry: dict[str, Any], name: str) -> str:
    """Mean over the seeds and its standard error, in percent; a dash where it was not measured."""
    if name not in entry["mean"]:
        return "-"
    mean, error = entry["mean"][name], entry["standard_error"][name]
    return f"{100 * mean:.1f} %" if error is None else f"{100 * mean:.1f} ± {100 * error:.1f} %"


def minutes(entry: dict[str, Any]) -> str:
    return f"{entry['mean']['cpu_minutes']:.1f}"


def filled(text: str) -> str:
    """The README with every marked table made anew."""
    return _MARKED.sub(
        lambda match: match[1] + "".join(f"{line}\n" for line in TABLES[match[2]]()) + match[4], text
    )


def main() -> None:
    before = README.read_text()
    after = filled(before)
    if "--check" in sys.argv[1:]:
        sys.exit("README.md is not what benchmarks/results say: run `make readme`" if after != before else 0)
    README.write_text(after)


if __name__ == "__main__":
    main()
