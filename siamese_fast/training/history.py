"""What happened while training: one row a logged step, as a CSV file, TensorBoard scalars or columns for a
plot.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from siamese_fast._extras import require
from siamese_fast.data._cache import written_whole


@dataclass
class History:
    """Rows of named numbers; every row has `step`, `loss`, `learning_rate`, `seconds` and `cpu_seconds`.

    `loss` is the mean since the row before; `seconds` (wall) and `cpu_seconds` (all threads) count training
    from its start, interruptions left out. Rows of a validated step also hold what the validation returned.

    Example:
        >>> steps, accuracy = history.curve("accuracy")
    """

    rows: list[dict[str, float]] = field(default_factory=list)

    def add(self, row: Mapping[str, float]) -> None:
        self.rows.append(dict(row))

    def curve(self, name: str) -> tuple[list[int], list[float]]:
        """Steps and values of the rows that hold `name`, ready to plot."""
        rows = [row for row in self.rows if name in row]
        return [int(row["step"]) for row in rows], [row[name] for row in rows]

    def last(self, name: str) -> float:
        """The latest value of `name`.

        Raises:
            KeyError: no row holds it.
        """
        for row in reversed(self.rows):
            if name in row:
                return row[name]
        raise KeyError(
            f"no row holds {name!r}; the rows hold {sorted({key for row in self.rows for key in row})}"
        )

    def write_csv(self, path: str | Path) -> None:
        """Write all rows; values that a row does not hold are left empty. A reader never sees half a file."""
        names = list(dict.fromkeys(key for row in self.rows for key in row))
        with written_whole(Path(path)) as partial, partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(self.rows)


class Log:
    """Where rows go while training: always the history, a CSV file and TensorBoard if asked for."""

    def __init__(self, history: History, csv_path: Path | None, tensorboard: Path | None) -> None:
        self._history = history
        self._csv_path = csv_path
        self._writer = None
        if tensorboard is not None:
            require("tensorboard", extra="tensorboard")
            first = int(history.rows[-1]["step"]) + 1 if history.rows else 0
            self._writer = require("torch.utils.tensorboard", extra="tensorboard").SummaryWriter(
                str(tensorboard), purge_step=first
            )

    def add(self, row: Mapping[str, float]) -> None:
        self._history.add(row)
        if self._csv_path is not None:
            self._history.write_csv(self._csv_path)
        if self._writer is not None:
            for name, value in row.items():
                if name != "step":
                    self._writer.add_scalar(name, value, int(row["step"]))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
