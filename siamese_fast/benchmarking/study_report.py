"""Tables and plots of the studies: cost as work grows, and whole training steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from siamese_fast.benchmarking.report import line, seconds, size, table, where

Cells = tuple[str, ...]


def show(study: dict[str, Any], console: Console) -> None:
    """The study's tables in the terminal."""
    console.print(where(study))
    cap = f"each point a process under {study['cap_bytes'] / 1e9:.1f} GB and {study['cap_seconds']:.0f} s"
    console.print(cap, style="dim")
    for title, columns, rows in _tables(study):
        shown = table(title, *columns)
        for cells in rows:
            shown.add_row(*cells)
        console.print("", shown)


def markdown(study: dict[str, Any]) -> list[str]:
    """The study's first table, as lines of Markdown."""
    _, columns, rows = _tables(study)[0]
    return [line(columns), line(["---", *["---:"] * (len(columns) - 1)]), *map(line, rows)]


def draw(study: dict[str, Any], folder: str | Path) -> list[Path]:
    """Time and memory over N, a line each (extra `plots`); returns the path."""
    from siamese_fast.plots import CURVES, figure, save

    growth = study["study"] == "growth"
    lines = study["contenders"] if growth else study["entries"]
    fig = figure(12, 4.4)
    for ax, (what, scale, label) in zip(
        fig.subplots(1, 2),
        (("seconds", 1e-3, "milliseconds"), ("bytes", 1e6, "peak memory, MB")),
        strict=True,
    ):
        for number, one in enumerate(found for found in lines if found["points"]):
            name = one["name"] if growth else f"{one['encoder']}, {one['loss']}"
            ours = name.endswith("siamese_fast")
            ax.plot(
                [point["N"] for point in one["points"]],
                [point[what] / scale for point in one["points"]],
                color=CURVES[number % len(CURVES)],
                linestyle=("-", "--", ":")[number // len(CURVES) % 3],
                linewidth=2.4 if ours else 1.4,
                marker="o",
                markersize=3,
                label=name,
            )
        ax.set(xscale="log", yscale="log", xlabel="N", ylabel=label)
        ax.grid(color="#e6e9ed", linewidth=0.8)
    fig.axes[0].legend(fontsize=7)
    fig.suptitle(study["operation"] if growth else "one training step")
    fig.tight_layout()
    return [save(fig, Path(folder) / f"{study['study']}.png")]


def _tables(study: dict[str, Any]) -> list[tuple[str, Cells, list[Cells]]]:
    if study["study"] == "growth":
        grown: Cells = (
            "",
            "time grows as N^",
            "memory as N^",
            "largest N",
            "time there",
            "memory there",
            "ended by",
        )
        return [(study["operation"], grown, [_growth_cells(one) for one in study["contenders"]])]
    columns: Cells = ("encoder and loss", "largest batch", "time there", "memory there", "ended by")
    compared: Cells = (
        "encoder",
        "N",
        "loss share, ours",
        "loss share, pytorch-metric-learning",
        "step faster",
        "",
    )
    return [
        (
            "whole training steps, the share that the loss takes",
            compared,
            list(map(_step_cells, study["comparison"])),
        ),
        ("largest batch", columns, [_largest_cells(one) for one in study["entries"]]),
    ]


def _growth_cells(one: dict[str, Any]) -> Cells:
    if not one["points"]:
        return (one["name"], "-", "-", "-", "-", "-", one["ended"] or "")
    last = one["points"][-1]
    return (
        one["name"],
        _slope(one["time_exponent"]),
        _slope(one["memory_exponent"]),
        f"{last['N']}",
        seconds(last["seconds"]),
        size(last["bytes"]),
        one["ended"] or "nothing",
    )


def _step_cells(row: dict[str, Any]) -> Cells:
    shares = row["loss_share"]
    verdict = {True: "the loss is a bottleneck", False: "the loss is not the bottleneck", None: ""}
    return (
        row["encoder"],
        f"{row['N']}",
        _percent(shares["siamese_fast"]),
        _percent(shares["pytorch-metric-learning"]),
        "-" if row["faster"] is None else f"{row['faster']:.2f}x",
        verdict[row["bottleneck"]],
    )


def _largest_cells(one: dict[str, Any]) -> Cells:
    name = f"{one['encoder']}, {one['loss']}"
    if not one["points"]:
        return (name, "-", "-", "-", one["ended"] or "")
    last = one["points"][-1]
    return (name, f"{last['N']}", seconds(last["seconds"]), size(last["bytes"]), one["ended"] or "nothing")


def _slope(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"
