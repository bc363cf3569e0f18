"""`siamese-fast bench`: the operations against other libraries, on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from siamese_fast.benchmarking import charts, comparison, report, study_report, suite
from siamese_fast.benchmarking import growth as growth_study
from siamese_fast.benchmarking import rows as table
from siamese_fast.benchmarking import steps as steps_study
from siamese_fast.benchmarking.harness import Plan
from siamese_fast.benchmarking.work import Work
from siamese_fast.cli._common import Json, blaming, emit, note

_FAILED = 1


def bench(
    full: Annotated[
        bool, typer.Option("--full", help="Every row: half an hour instead of ten minutes.")
    ] = False,
    only: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only rows whose name contains this.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads for every contender.")] = 1,
    seconds: Annotated[
        float, typer.Option(min=0.01, help="To time a row for, all its contenders together.")
    ] = 6.0,
    peers: Annotated[bool, typer.Option(help="Time other libraries and forms too.")] = True,
    memory: Annotated[bool, typer.Option(help="Measure peak memory too, in fresh processes.")] = True,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the result as JSON.")
    ] = None,
    plots: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write a plot for each operation.")
    ] = None,
    compare: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            metavar="BEFORE AFTER",
            help="Measure nothing, compare two results; status 1 if a row became slower beyond the noise.",
        ),
    ] = None,
    noise: Annotated[
        float, typer.Option(min=0, help="With --compare: the smallest relative change that counts.")
    ] = comparison.NOISE,
    growth: Annotated[
        bool,
        typer.Option(
            "--growth", help="Instead: time and memory from N = 256 to 65536 under a cap; up to 7 minutes."
        ),
    ] = False,
    steps: Annotated[
        bool, typer.Option("--steps", help="Instead: whole training steps, with and without our loss.")
    ] = False,
    cap: Annotated[
        float | None,
        typer.Option(min=0.5, help="With --growth or --steps: GB that one process may hold; 8 by default."),
    ] = None,
    list_rows: Annotated[bool, typer.Option("--list", help="Name the rows, measure nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Time the operations against other libraries and this machine's limits.

    All contenders of a row run interleaved in one process; a library that is not installed is shown as
    missing. An operation that fails its test is never timed, and the status is then 1. Measure on a
    quiet machine.

    [bold]Examples:[/]

    siamese-fast bench --only batch-hard --output now.json --plots plots

    siamese-fast bench --compare before.json now.json

    siamese-fast bench --growth --cap 4
    """
    if compare is not None:
        _compare(*compare, noise, as_json)
        return
    if growth or steps:
        _study(growth_study.study if growth else steps_study.study, cap, threads, output, plots, as_json)
        return
    rows = table.select(only, full=full)
    if not rows:
        names = ", ".join(row.name for row in table.WORK)
        raise typer.BadParameter(f"no row is named like {only!r}; there are {names}", param_hint="--only")
    if list_rows:
        _list(rows, as_json)
        return
    result = _measure(rows, suite.Settings(threads, Plan(seconds), memory, peers))
    if output is not None:
        comparison.save(result, output)
        note(f"wrote {output}")
    if plots is not None:
        with blaming("--plots"):
            charts.draw(result, plots)
        note(f"wrote plots to {plots}")
    emit(result, as_json, lambda console: report.show(result, console))
    if any(row["gate"] != "passed" for row in result["rows"]):
        raise typer.Exit(_FAILED)


def _study(
    study: Callable[..., dict[str, Any]],
    cap: float | None,
    threads: int,
    output: Path | None,
    plots: Path | None,
    as_json: bool,
) -> None:
    budget = growth_study.Budget(cap=None if cap is None else int(cap * 1e9))
    with _progress(0) as tell:
        found = study(budget, threads, tell=tell)
    if output is not None:
        comparison.save(found, output)
        note(f"wrote {output}")
    if plots is not None:
        with blaming("--plots"):
            study_report.draw(found, plots)
        note(f"wrote plots to {plots}")
    emit(found, as_json, lambda console: study_report.show(found, console))


def _list(rows: list[Work], as_json: bool) -> None:
    named = [{"name": row.name, "stage": row.stage, "full": row.full} for row in rows]

    def show(console: Console) -> None:
        for row in rows:
            console.print(f"{row.name}  [dim]{row.stage}{', --full' if row.full else ''}[/]")

    emit({"rows": named}, as_json, show)


def _measure(rows: list[Work], settings: suite.Settings) -> dict[str, Any]:
    with _progress(len(rows)) as tell:
        return suite.run(rows, settings, tell)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[str, int, int], None]]:
    columns = (
        BarColumn(20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)

        def tell(text: str, done: int, total: int) -> None:
            bar.update(task, description=text, completed=done, total=total)

        yield tell


def _compare(before: Path, after: Path, noise: float, as_json: bool) -> None:
    with blaming("--compare"):
        old, new = comparison.load(before), comparison.load(after)
    changes = comparison.compare(old, new, noise)
    remarks = comparison.differences(old, new)
    emit(
        {"changes": [change.to_dict() for change in changes], "remarks": remarks},
        as_json,
        lambda console: report.show_changes(changes, remarks, console),
    )
    if any(change.verdict == "slower" for change in changes):
        raise typer.Exit(_FAILED)
