"""`siamese-fast evaluate`: one-shot accuracy, verification or retrieval on test images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from siamese_fast import data
from siamese_fast.cli._common import (
    Json,
    ModelOption,
    Named,
    Omniglot,
    Seed,
    blaming,
    emit,
    get_images,
    get_model,
    percent,
    table,
)
from siamese_fast.data import ImageSet
from siamese_fast.evaluation import (
    jitters,
    omniglot_runs_error,
    one_shot_episodes,
    retrieval,
    right_angles,
    verification,
)

_MEASURES = ("one-shot", "verification", "retrieval")


def evaluate(
    model: ModelOption = "softmax",
    on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DATA",
            help="[bold]digits[/] (handwritten, real), [bold]glyphs[/] (alphabets never trained on), "
            "[bold]omniglot[/] (its runs), a folder of class folders, or a CSV file. May be repeated.",
            show_default="digits and glyphs",
        ),
    ] = None,
    measure: Annotated[str, typer.Option(metavar="MEASURE", help=", ".join(_MEASURES) + ".")] = "one-shot",
    way: Annotated[
        int | None, typer.Option(min=2, help="Classes in an episode.", show_default="20, or all there are")
    ] = None,
    shot: Annotated[int, typer.Option(min=1, help="Examples of each class.")] = 1,
    episodes: Annotated[int, typer.Option(min=1, help="Episodes.")] = 200,
    views: Annotated[
        bool,
        typer.Option(
            "--views",
            help="On omniglot: average over quarter turns, each at the best match of changed images.",
        ),
    ] = False,
    omniglot: Omniglot = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Measure a model on classes it was not trained on, the nearest raw pixels beside it.

    [bold]Examples:[/]

    siamese-fast evaluate --model runs/glyphs-softmax-0 --on digits

    siamese-fast evaluate --model runs/omniglot-triplets-0 --on omniglot --omniglot DIR --views
    """
    if measure not in _MEASURES:
        raise typer.BadParameter(f"{measure!r} is none of {', '.join(_MEASURES)}", param_hint="--measure")
    named = get_model(model)
    results: dict[str, dict[str, Any]] = {}
    for name in on or ["digits", "glyphs"]:
        if name == "omniglot":
            results[name] = _official_runs(named, omniglot, views)
            continue
        images = get_images(name, named.model.inputs, "--on")
        with blaming(f"--on {name}"):
            if measure == "one-shot":
                results[name] = _one_shot(named, name, images, way, shot, episodes, seed)
            else:
                run = verification if measure == "verification" else retrieval
                results[name] = run(named.model.network, images).to_dict()
    emit(
        {"model": named.name, "measure": measure, "results": results},
        as_json,
        lambda console: _show(console, named, results),
    )


def _one_shot(
    named: Named, name: str, images: ImageSet, way: int | None, shot: int, episodes: int, seed: int
) -> dict[str, Any]:
    return one_shot_episodes(
        named.model.network,
        images,
        n_way=way or min(20, images.num_classes),
        k_shot=shot,
        n_query=None if name == "digits" else 5,
        n_episodes=episodes,
        within_groups=name != "digits",
        seed=seed,
    ).to_dict()


def _official_runs(named: Named, root: Path | None, views: bool) -> dict[str, Any]:
    if root is None:
        raise typer.BadParameter(
            "the folder of Omniglot's archives is needed for --on omniglot", param_hint="--omniglot"
        )
    inputs = named.model.inputs
    with blaming("--omniglot"):
        runs = data.omniglot_runs(root, size=inputs.size, drawn=inputs.drawn)
    if not views:
        return omniglot_runs_error(named.model.network, runs).to_dict()
    return omniglot_runs_error(named.model.network, runs, views=right_angles(), jitters=jitters()).to_dict()


def _show(console: Console, named: Named, results: dict[str, dict[str, Any]]) -> None:
    console.print(f"model: {named.name}")
    for name, result in results.items():
        rows = table(name, "")
        for key, value in result.items():
            if key == "recall":
                for k, share in value.items():
                    rows.add_row(f"recall@{k}", percent(share))
            elif isinstance(value, float):
                rows.add_row(key.replace("_", " "), f"{value:.4f}" if key == "threshold" else percent(value))
            elif isinstance(value, int):
                rows.add_row(key.replace("_", " "), str(value))
        console.print("", rows)
