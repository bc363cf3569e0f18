"""Plots of a result (extra `plots`): a PNG for each operation with times, memory and share of the limit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from siamese_fast.plots import CURVES, FAINT, INK, figure, save

_COLORS = {"ours": CURVES[0], "published": CURVES[1], "constructed": FAINT}


def draw(result: dict[str, Any], folder: str | Path) -> list[Path]:
    """Write the plots; returns their paths."""
    operations: dict[str, list[dict[str, Any]]] = {}
    for row in result["rows"]:
        if any(entry["status"] == "timed" for entry in row["entries"]):
            operations.setdefault(row["operation"], []).append(row)
    return [_operation(name, rows, Path(folder)) for name, rows in operations.items()]


def _operation(name: str, rows: list[dict[str, Any]], folder: Path) -> Path:
    growing = _growing(rows) if len(rows) > 1 else None
    memory = any("peak_bytes" in entry for row in rows for entry in row["entries"])
    bars = 1 if growing else max(len(row["entries"]) for row in rows)
    fig = figure(6.4 * (2 if memory else 1), 4.2 if growing else 1.4 + 0.42 * bars)
    axes = fig.subplots(1, 2 if memory else 1, squeeze=False)[0]
    if growing:
        _lines(axes[0], rows, growing, "median", 1e-3, "milliseconds")
    else:
        _bars(axes[0], rows[0], "median", 1e-3, "milliseconds")
    axes[0].set_title(_title(name, rows))
    if memory:
        measured = [row for row in rows if any("peak_bytes" in entry for entry in row["entries"])]
        _bars(axes[1], measured[-1], "peak_bytes", 1e6, "peak memory, MB")
        axes[1].set_title(f"memory, {_sizes(measured[-1])}")
    fig.tight_layout()
    return save(fig, folder / f"{re.sub(r'[^a-z0-9]+', '-', name.casefold()).strip('-')}.png")


def _growing(rows: list[dict[str, Any]]) -> str:
    """The size that the rows of an operation differ in."""
    return next(
        (name for name in rows[0]["size"] if len({row["size"][name] for row in rows}) == len(rows)), "N"
    )


def _title(name: str, rows: list[dict[str, Any]]) -> str:
    share = rows[-1]["cost"]["share"] if rows[-1]["cost"] else None
    limit = (
        f"\n{100 * share:.0f} % of the machine's limit ({_sizes(rows[-1])})"
        if share
        else f"\n{_sizes(rows[-1])}"
    )
    return name + limit


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
    axes.set(xscale="log", yscale="log", xlabel=across, ylabel=label)
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
