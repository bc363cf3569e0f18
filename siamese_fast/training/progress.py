"""The progress bar of training: step, loss and the latest validation, on standard error, only on a
terminal.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from siamese_fast.training.state import TrainingState

_NOT_SHOWN = ("step", "loss", "learning_rate", "seconds", "cpu_seconds")


@contextmanager
def training_bar(state: TrainingState, *, shown: bool) -> Iterator[Callable[[Mapping[str, float]], None]]:
    """Yield `show(row)`, which moves the bar to the row's step and writes the loss and validation beside
    it.
    """
    if not (shown and sys.stderr.isatty()):
        yield lambda row: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=state.total, completed=state.step)
        measured: dict[str, float] = {}

        def show(row: Mapping[str, float]) -> None:
            measured.update({name: value for name, value in row.items() if name not in _NOT_SHOWN})
            beside = "  ".join(
                f"{name} {value:.3f}" for name, value in {"loss": row["loss"], **measured}.items()
            )
            bar.update(task, completed=int(row["step"]), description=beside)

        yield show
