"""The tables and plots of README.md and docs/benchmarks.md, from the JSON files in results/: nothing measured
is typed by hand.

Each table stands between `<!-- table: NAME -->` and `<!-- end -->`. `--check` writes nothing and fails where
a file is not what the results say.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from siamese_fast.benchmarking import charts, comparison, drop_ins, report, study_report

FOLDER = Path(__file__).parent
PAGES = tuple(FOLDER.parent / name for name in ("README.md", "docs/benchmarks.md", "docs/migration.md"))
QUALITY = FOLDER / "results" / "quality.json"
SPEED = FOLDER / "results" / "speed.json"
THREADS = FOLDER / "results" / "speed-threads.json"
GROWTH = FOLDER / "results" / "growth.json"
STEPS = FOLDER / "results" / "steps.json"
PLOTS = FOLDER / "results" / "plots"
DISTRIBUTED = FOLDER / "results" / "distributed.json"
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
    """The main rows of the benchmark."""
    return report.markdown(comparison.load(SPEED), every=False) if SPEED.exists() else []


def speed_rows() -> list[str]:
    """Every row of the benchmark."""
    return report.markdown(comparison.load(SPEED)) if SPEED.exists() else []


def speed_machine() -> list[str]:
    """Where the times were measured."""
    return [f"Measured on {report.where(comparison.load(SPEED))}."] if SPEED.exists() else []


def speed_targets() -> list[str]:
    """What each row aims at."""
    return report.markdown_targets(comparison.load(SPEED)) if SPEED.exists() else []


def speed_limits() -> list[str]:
    """The machine's limits in the run."""
    return report.markdown_limits(comparison.load(SPEED)) if SPEED.exists() else []


def speed_missing() -> list[str]:
    """Contenders that did not take part, and why."""
    if not SPEED.exists():
        return []
    entries = [entry for row in comparison.load(SPEED)["rows"] for entry in row["entries"]]
    absent = {entry["name"]: entry["reason"] for entry in entries if entry["status"] == "missing"}
    return [f"- {name}: {reason}" for name, reason in absent.items()] or ["None."]


def gains() -> list[str]:
    """A library's class and the drop-in of the same name, in every row that has both."""
    lines = header("work", "library", "the library", "drop-in", "times faster")
    for measured in comparison.load(SPEED)["rows"] if SPEED.exists() else []:
        found = {entry["name"]: entry for entry in measured["entries"]}
        for name, after in found.items():
            library = name.removesuffix(drop_ins.SUFFIX)
            if library == name or after["status"] != "timed":
                continue
            before = found[library]
            timed = before["status"] == "timed"
            cells = (
                report.seconds(before["median"]) if timed else before["reason"],
                report.seconds(after["median"]),
                f"{before['median'] / after['median']:.1f}" if timed else "-",
            )
            lines.append(row(measured["name"].removeprefix("drop-ins, "), library, *cells))
    return lines if len(lines) > 2 else []


def threads() -> list[str]:
    """Ours on two threads and on one."""
    return report.markdown_threads(comparison.load(THREADS)) if THREADS.exists() else []


def growth() -> list[str]:
    """Exponents, and the largest batch of every contender."""
    return study_report.markdown(read(GROWTH)) if GROWTH.exists() else []


def steps() -> list[str]:
    """Whole training steps."""
    return study_report.markdown(read(STEPS)) if STEPS.exists() else []


def picture() -> list[str]:
    """The plot of the first operation, or of growth where that was studied."""
    stems = {GROWTH.stem: "cost as N grows", "batch-hard-triplet-loss": "batch-hard triplet loss"}
    found = [(stem, title) for stem, title in stems.items() if (PLOTS / f"{stem}.png").exists()]
    return [f"![{title}](benchmarks/results/plots/{stem}.png)" for stem, title in found[:1]]


def pictures() -> list[str]:
    """Every plot, those of the rows in the order of the rows."""
    names = (
        dict.fromkeys(row["operation"] for row in comparison.load(SPEED)["rows"]) if SPEED.exists() else {}
    )
    named = {charts.slug(name): name for name in names}
    studies = {path.stem: study for path, study in ((GROWTH, "cost as N grows"), (STEPS, "training steps"))}
    found = {**studies, **named}
    return [
        f"![{title}](../benchmarks/results/plots/{stem}.png)"
        for stem, title in found.items()
        if (PLOTS / f"{stem}.png").exists()
    ]


def distributed() -> list[str]:
    """A step of the cross-rank loss against all_gather and eager mining."""
    found = read(DISTRIBUTED)
    lines = header("W", "rows a rank", "contender", "CPU ms a step, all ranks", "MB sent a step, all ranks")
    for size in ("2", "4"):
        for one in found.get("steps", {}).get(size, []):
            cells = (f"{1e3 * one['least_cpu_seconds']:.3g}", f"{one['bytes'] / 1e6:.3g}")
            lines.append(row(size, f"{one['rows']:,}", one["contender"], *cells))
    return lines if found else []


def distributed_memory() -> list[str]:
    """Peak memory of a step on each of 4 ranks."""
    found = read(DISTRIBUTED)
    measured = {(one["contender"], one["rows"]): one["bytes"] for one in found.get("memory", [])}
    contenders = list(dict.fromkeys(name for name, _ in measured))
    lines = header("rows a rank", *contenders)
    for rows in dict.fromkeys(rows for _, rows in measured):
        lines.append(row(f"{rows:,}", *(f"{measured[name, rows] / 1e6:.3g} MB" for name in contenders)))
    return lines if found else []


TABLES: dict[str, Callable[[], list[str]]] = {
    "machine": machine,
    "glyphs": glyphs,
    "omniglot": omniglot,
    "speed": speed,
    "speed_machine": speed_machine,
    "speed_rows": speed_rows,
    "speed_targets": speed_targets,
    "speed_limits": speed_limits,
    "speed_missing": speed_missing,
    "gains": gains,
    "threads": threads,
    "growth": growth,
    "steps": steps,
    "picture": picture,
    "pictures": pictures,
    "distributed": distributed,
    "distributed_memory": distributed_memory,
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
    """A page with every marked table made anew."""
    return _MARKED.sub(
        lambda match: match[1] + "".join(f"{line}\n" for line in TABLES[match[2]]()) + match[4], text
    )


def draw() -> None:
    """Every plot anew; those of operations that are gone go too."""
    for path in PLOTS.glob("*.png"):
        path.unlink()
    if SPEED.exists():
        charts.draw(comparison.load(SPEED), PLOTS)
    for path in (GROWTH, STEPS):
        if path.exists():
            study_report.draw(read(path), PLOTS)


def main() -> None:
    checking = "--check" in sys.argv[1:]
    if not checking:
        draw()
    for page in PAGES:
        before = page.read_text()
        after = filled(before)
        if checking and after != before:
            sys.exit(f"{page.name} is not what benchmarks/results say: run `make readme`")
        page.write_text(after)


if __name__ == "__main__":
    main()
