"""`siamese-fast demo`: train on printed letters, read handwritten digits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from siamese_fast.cli._common import Json, Seed, blaming, emit, note, percent, table
from siamese_fast.demo import METHODS, TITLES, DemoResult, train_and_test
from siamese_fast.demo_picture import draw_demo
from siamese_fast.models import save_model

HEADLINE = "Trained only on printed letters, reads handwritten digits from one example each"


def demo(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the picture and the models.")
    ] = Path("demo-output"),
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Train both methods on printed letters, then read real handwritten digits: minutes, nothing to download.

    Writes demo.png (answers, a map of embeddings, learning curves) and both models. With seed 0 they become
    the default models of [bold]predict[/], [bold]compare[/] and the others.
    """
    results = []
    for method in METHODS:
        note(f"training {method}: {TITLES[method]} ...")
        with blaming("demo"):
            results.append(train_and_test(method, seed=seed))
        save_model(output / method, results[-1].model, results[-1].history)
    picture = draw_demo(results, output / "demo.png")
    described = {
        "picture": str(picture),
        "models": {result.method: str(output / result.method) for result in results},
        "results": [result.to_dict() for result in results],
    }
    emit(described, as_json, lambda console: _show(console, results, picture, seed))


def _show(console: Console, results: list[DemoResult], picture: Path, seed: int) -> None:
    rows = table("method", "training", "unseen letters, 20-way", "real digits, 10-way")
    first = results[0]
    for result in results:
        rows.add_row(
            TITLES[result.method],
            f"{result.history.last('seconds'):.0f} s",
            f"{percent(result.letters.accuracy)} ± {percent(result.letters.confidence)}",
            f"[bold]{percent(result.digits.accuracy)}[/] ± {percent(result.digits.confidence)}",
        )
    rows.add_row("raw pixels, nearest", "-", percent(first.letters.pixels), percent(first.digits.pixels))
    console.print(
        f"\n[bold]{HEADLINE}[/]: one-shot accuracy, with its 95 % interval over episodes\n", rows, ""
    )
    console.print(f"The picture: [bold]{picture}[/]")
    if seed == 0:
        console.print("Yours next:  siamese-fast predict --support FOLDER --query FOLDER")
