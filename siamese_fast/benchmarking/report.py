"""Results for people: tables in the terminal and in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from siamese_fast.benchmarking.comparison import Change

_UNITS = {"flop": "GFLOP/s", "byte": "GB/s", "element": "G elements/s"}
_LIMITS = {
    "product": "matrix product",
    "fma": "fused multiply-adds",
    "abs": "sub, and, fma",
    "max": "max, fma",
    "sign": "sub, sign, fma, fma",
}
_KIND = {"ours": "", "published": "", "constructed": "our construction", "baseline": "ours"}
_AGREES = 1e-3


def show(result: dict[str, Any], console: Console) -> None:
    """Everything: the machine, each row with its contenders, and the summary."""
    console.print(where(result))
    for name, limit in result["limits"].items():
        rate = _rate(limit["rate"], limit["unit"].split("/")[0])
        console.print(f"limit, {_LIMITS.get(name, name)}: {rate} ({limit['probe']})", style="dim")
    for row in result["rows"]:
        console.print("", _row_table(row))
    console.print("", _summary(result))
    if any(row["targets"] for row in result["rows"]):
        console.print("", _aims(result))
    for row in result["rows"]:
        if row["gate"] != "passed":
            console.print(f"{row['name']}: not timed, gate {row['gate']}", style="bold red")


def where(result: dict[str, Any]) -> str:
    """The machine and the versions, in a line."""
    machine, versions = result["machine"], result["versions"]
    threads = "1 thread" if machine["threads"] == 1 else f"{machine['threads']} threads"
    return f"{machine['processor']}, {machine['instruction_set']}, {threads}, torch {versions['torch']}"


def _row_table(row: dict[str, Any]) -> Table:
    shown = table(f"{row['name']}, {row['stage']}", "", "time", "spread", "x ours", "memory", "")
    for entry in row["entries"]:
        if entry["status"] != "timed":
            shown.add_row(
                entry["name"], "-", "-", "-", "-", f"{entry['status']}: {entry['reason']}", style="dim"
            )
            continue
        ratio = row["ratios"].get(entry["name"])
        differs = entry.get("disagreement", 0.0) > _AGREES
        shown.add_row(
            entry["name"],
            seconds(entry["median"]),
            f"{100 * (entry['high'] - entry['low']) / entry['median']:.0f} %",
            "" if ratio is None else f"{ratio:.2f}",
            size(entry.get("peak_bytes")),
            f"answers differ by {entry['disagreement']:.1e}" if differs else _KIND[entry["column"]],
            style="bold" if entry["column"] == "ours" else None,
        )
    return shown


def _summary(result: dict[str, Any]) -> Table:
    shown = table("summary", "row", "siamese_fast", "share of limit", "x published", "x constructed")
    for cells in summary(result):
        shown.add_row(*cells)
    return shown


def _aims(result: dict[str, Any]) -> Table:
    """Every aim with what was reached; what is missed stands out."""
    shown = table("aims", "row", "reached", "aim", "")
    for row in result["rows"]:
        for target in row["targets"]:
            cells = (row["name"], *_aim(target), "met" if target["met"] else "MISSED")
            shown.add_row(*cells, style=None if target["met"] else "bold red")
    return shown


def summary(result: dict[str, Any]) -> list[tuple[str, str, str, str, str]]:
    """One line a row: name, time, share of the limit, ratios to the best of both columns."""
    lines = []
    for row in result["rows"]:
        ours = next(entry for entry in row["entries"] if entry["column"] == "ours")
        if ours["status"] != "timed":
            lines.append((row["name"], ours["status"], "-", "-", "-"))
            continue
        share = row["cost"]["share"]
        rate = _rate(row["cost"]["rate"], row["cost"]["unit"])
        lines.append(
            (
                row["name"],
                seconds(ours["median"]),
                rate if share is None else f"{100 * share:.0f} % ({rate})",
                _best(row, "published"),
                _best(row, "constructed"),
            )
        )
    return lines


def _aim(target: dict[str, Any]) -> tuple[str, str]:
    """What was reached and what was wanted, in words."""
    wanted, reached, kind = target["ratio"], target["reached"], target.get("kind", "ratio")
    if kind == "memory":
        return size(reached), f"at most {size(wanted)}"
    if kind == "share":
        return "-" if reached is None else f"{100 * reached:.0f} %", f"{100 * wanted:.0f} % of the limit"
    return "-" if reached is None else f"{reached:.2f}", f"{wanted:.3g}x {target['against']}"


def markdown(result: dict[str, Any], *, every: bool = True) -> list[str]:
    """The summary as lines of a Markdown table, of every row or of the main ones; with peak memory."""
    columns = (
        "work",
        "siamese_fast",
        "share of the limit",
        "times faster than the best library",
        "than the best form of our own",
        "peak memory",
    )
    lines = [line(columns), line(["---", *["---:"] * (len(columns) - 1)])]
    for row, (name, time, share, published, constructed) in zip(result["rows"], summary(result), strict=True):
        if every or row.get("main", True):
            lines.append(line((f"{name}, {row['stage']}", time, share, published, constructed, _memory(row))))
    return lines


def markdown_targets(result: dict[str, Any]) -> list[str]:
    """What every row aims at and whether it is reached, as lines of a Markdown table."""
    lines = [line(("work", "aim", "reached", "")), line(("---", "---", "---:", "---"))]
    for row in result["rows"]:
        for target in row["targets"]:
            reached, aim = _aim(target)
            lines.append(line((row["name"], aim, reached, "met" if target["met"] else "**missed**")))
    return lines


def markdown_limits(result: dict[str, Any]) -> list[str]:
    """The machine's limits as lines of a Markdown table."""
    lines = [line(("limit", "rate", "measured by")), line(("---", "---:", "---"))]
    for name, limit in result["limits"].items():
        rate = _rate(limit["rate"], limit["unit"].split("/")[0])
        lines.append(line((_LIMITS.get(name, name), rate, limit["probe"])))
    return lines


def markdown_threads(result: dict[str, Any]) -> list[str]:
    """Ours on the threads of the run and on one, interleaved, as lines of a Markdown table."""
    threads = result["machine"]["threads"]
    columns = ("work", "one thread", f"{threads} threads", "times faster", "share of their limit")
    lines = [line(columns), line(("---", *["---:"] * 4))]
    for row in result["rows"]:
        entries = {
            entry["column"] if entry["column"] == "ours" else entry["name"]: entry for entry in row["entries"]
        }
        if "one thread" not in row["ratios"]:
            continue
        share = row["cost"]["share"]
        cells = (seconds(entries["one thread"]["median"]), seconds(entries["ours"]["median"]))
        faster = f"{row['ratios']['one thread']:.2f}"
        lines.append(line((row["name"], *cells, faster, "-" if share is None else f"{100 * share:.0f} %")))
    return lines


def show_changes(changes: Sequence[Change], remarks: Sequence[str], console: Console) -> None:
    """A comparison of two results, what changed beyond the noise in colour."""
    shown = table(None, "row", "before", "after", "ratio", "noise", "others", "")
    styles = {"slower": "bold red", "faster": "bold green", "gone": "red"}
    for change in changes:
        shown.add_row(
            change.row,
            seconds(change.before),
            seconds(change.after),
            _factor(change.ratio),
            f"{100 * change.noise:.0f} %",
            _factor(change.elsewhere),
            change.verdict,
            style=styles.get(change.verdict),
        )
    console.print(shown)
    for remark in remarks:
        console.print(remark, style="yellow")


def seconds(value: float | None) -> str:
    """Three digits, in s, ms or us."""
    if value is None:
        return "-"
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if value >= scale:
            return f"{_digits(value / scale)} {unit}"
    return f"{_digits(value / 1e-6)} us"


def size(value: float | None) -> str:
    """Bytes in MB (10^6)."""
    return "" if value is None else f"{_digits(value / 1e6)} MB"


def _digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _rate(value: float, unit: str) -> str:
    return f"{_digits(value / 1e9)} {_UNITS[unit]}"


def _best(row: dict[str, Any], column: str) -> str:
    best = row["best"].get(column)
    return "-" if best is None else f"{best['ratio']:.1f} ({best['name']})"


def _memory(row: dict[str, Any]) -> str:
    found: dict[str, float] = {
        entry["name"]: entry["peak_bytes"] for entry in row["entries"] if "peak_bytes" in entry
    }
    ours = next(entry["name"] for entry in row["entries"] if entry["column"] == "ours")
    if ours not in found:
        return "-"
    others = [value for name, value in found.items() if name != ours]
    return size(found[ours]) + (f", others {size(min(others))} to {size(max(others))}" if others else "")


def _factor(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def line(cells: Sequence[str]) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def table(title: str | None, *columns: str) -> Table:
    """A table for the terminal, words at its ends and numbers between."""
    built = Table(
        title=title, title_justify="left", title_style="bold", header_style="bold", box=None, pad_edge=False
    )
    for index, column in enumerate(columns):
        words = index in (0, len(columns) - 1)
        built.add_column(column, justify="left" if words else "right", overflow="fold")
    return built
