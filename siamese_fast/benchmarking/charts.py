"""Plots of a result (extra `plots`): a PNG for each operation with times, memory and share of the limit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from siamese_fast.plots import CURVES, FAINT, INK, figure, save

_COLORS = {"ours": CURVES[0], "published": CURVES[1], "constructed": FAINT, "baseline": CURVES[2]}
_PANELS = (
    ("median", 1e-3, "milliseconds"),
    ("peak_bytes", 1e6, "peak memory, MB"),
    ("share", 1e-2, "% of the machine's limit"),
)


def draw(result: dict[str, Any], folder: str | Path) -> list[Path]:
    """Write the plots; returns their paths."""
    operations: dict[str, list[dict[str, Any]]] = {}
    for row in result["rows"]:
        if any(entry["status"] == "timed" for entry in row["entries"]):
            operations.setdefault(row["operation"], []).append(row)
    return [_operation(name, rows, Path(folder)) for name, rows in operations.items()]


def _operation(name: str, rows: list[dict[str, Any]], folder: Path) -> Path:
    """Time and the share of the limit over the size that grows, or as bars; memory of the largest row."""
    growing = _growing(rows) if len(rows) > 1 else None
    rows = [{**row, "entries": [_with_share(row, entry) for entry in row["entries"]]} for row in rows]
    panels = [
        panel for panel in _PANELS if any(panel[0] in entry for row in rows for entry in row["entries"])
    ]
    bars = max(len(row["entries"]) for row in rows)
    fig = figure(5.6 * len(panels), max(1.6 + 0.36 * bars, 4.2 if growing else 0.0))
    axes = fig.subplots(1, len(panels), squeeze=False)[0]
    for ax, (what, scale, label) in zip(axes, panels, strict=True):
        measured = [row for row in rows if any(what in entry for entry in row["entries"])]
        if growing and what != "peak_bytes":
            _lines(ax, measured, growing, what, scale, label)
        else:
            _bars(ax, measured[-1], what, scale, label)
            ax.set_title(_sizes(measured[-1]), fontsize=9)
    fig.suptitle(name)
    fig.tight_layout()
    return save(fig, folder / f"{slug(name)}.png")


def slug(name: str) -> str:
    """The name of an operation as that of its file."""
    return re.sub(r"[^a-z0-9]+", "-", name.casefold()).strip("-")


def _with_share(row: dict[str, Any], entry: dict[str, Any]) -> dict[str, Any]:
    """An entry with its own share of the row's limit."""
    share = row["cost"] and row["cost"]["share"]
    if share is None or entry["status"] != "timed":
        return entry
    ours = next(one["median"] for one in row["entries"] if one["column"] == "ours")
    return {**entry, "share": share * ours / entry["median"]}


def _growing(rows: list[dict[str, Any]]) -> str:
    """The size that the rows of an operation differ in."""
    return next(
        (name for name in rows[0]["size"] if len({row["size"][name] for row in rows}) == len(rows)), "N"
    )


def _sizes(row: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in row["size"].items())


def _lines(axes: Any, rows: list[dict[str, Any]], across: str, what: str, scale: float, label: str) -> None:
    points: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for row in rows:
        for entry in row["entries"]:
            if what in entry:
                points.setdefault((entry["name"], entry["column"]), []).append(
                    (row["size"][across], entry[what] / scale)
                )
    styles = ("-", "--", ":", "-.")
    counts: dict[str, int] = {}
    for (name, column), found in points.items():
        number = counts.get(column, 0)
        counts[column] = number + 1
        axes.plot(
            *zip(*found, strict=True),
            color=_COLORS[column],
            linewidth=2.4 if column == "ours" else 1.4,
            linestyle=styles[number % len(styles)],
            marker="o",
            markersize=3,
            label=name,
        )
    logarithmic = "linear" if what == "share" else "log"
    axes.set(xscale="log", yscale=logarithmic, xlabel=across, ylabel=label)
    sizes = [row["size"][across] for row in rows]
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.grid(color="#e6e9ed", linewidth=0.8)
    axes.legend(fontsize=7)


def _bars(axes: Any, row: dict[str, Any], what: str, scale: float, label: str) -> None:
    entries = [entry for entry in row["entries"] if what in entry][::-1]
    values = [entry[what] / scale for entry in entries]
    axes.barh(range(len(entries)), values, color=[_COLORS[entry["column"]] for entry in entries], height=0.62)
    axes.set_yticks(range(len(entries)), [entry["name"] for entry in entries], fontsize=8.5)
    for place, value in enumerate(values):
        axes.text(value, place, f" {value:.3g}", va="center", fontsize=8.5, color=INK)
    axes.set(xlabel=label, xlim=(0, 1.2 * max(values)))
