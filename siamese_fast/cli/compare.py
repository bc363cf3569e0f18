"""`siamese-fast compare`: do two images show the same class?"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from siamese_fast.cli._common import Json, ModelOption, blaming, emit, get_model, percent

Image = Annotated[Path, typer.Argument(show_default=False)]


def compare(
    a: Image,
    b: Image,
    model: ModelOption = "softmax",
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Say same from this probability on.", show_default="of the model"),
    ] = None,
    as_json: Json = False,
) -> None:
    """The probability that two images show the same class.

    At the model's own threshold, 1 in 100 pairs of different training classes passes as the same.

    [bold]Example:[/] siamese-fast compare A1.png A2.png
    """
    for path in (a, b):
        if not path.is_file():
            raise typer.BadParameter(f"{path} is not a file", param_hint="A, B")
    name, trained = get_model(model)
    with blaming("A, B"):
        first, second = trained.inputs.read([a]), trained.inputs.read([b])
    probability = float(trained.network.compare(first, second))
    rate = float(trained.network.false_accept_rate)
    limit = float(trained.network.threshold) if threshold is None else threshold
    answer = "same" if probability >= limit else "different"
    result = {
        "a": str(a),
        "b": str(b),
        "model": name,
        "probability": probability,
        "answer": answer,
        "threshold": limit,
        "false_accept_rate": None if threshold is not None or math.isnan(rate) else rate,
    }

    def show(console: Console) -> None:
        style = "bold green" if answer == "same" else "bold red"
        console.print(
            f"[{style}]{answer}[/]  probability {percent(probability, 2)}, threshold {percent(limit, 2)}"
        )

    emit(result, as_json, show)
