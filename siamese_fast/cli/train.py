"""`siamese-fast train`: a network from glyphs, Omniglot, or one's own images."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import typer
from rich.console import Console

from siamese_fast import data
from siamese_fast.cli._common import Json, Omniglot, Seed, blaming, emit, note, percent, table
from siamese_fast.data import ImageSet
from siamese_fast.models import ABOUT, HISTORY, WEIGHTS, Inputs, Model, inputs_of, save_model
from siamese_fast.recipes import RECIPES, Method, Recipe, one_shot_validation, train_recipe
from siamese_fast.training import History

CHECKPOINT, CURVE = "checkpoint.pt", "curve.png"
_METHODS = {
    "triplets": "batch-hard triplets with a soft margin",
    "softmax": "in-batch softmax over Koch logits",
    "bce": "cross-entropy of all in-batch pairs, hardest negatives",
    "pairs": "cross-entropy of balanced random pairs, as published by Koch et al.",
}
_MARGIN = 35 / 28


@dataclass(frozen=True)
class Job:
    """What is to be trained, as the user asked for it; written to the folder before training starts."""

    data: str
    method: Method
    seed: int
    size: int
    drawn: int | None
    color: bool
    rotations: bool
    length: dict[str, float]


def train(
    source: Annotated[
        str,
        typer.Option(
            "--data",
            "-d",
            metavar="DATA",
            help="[bold]glyphs[/] (printed letters, built in), [bold]omniglot[/], a folder of class folders "
            "of images, or a CSV file with the columns path and label.",
        ),
    ] = "glyphs",
    method: Annotated[
        str,
        typer.Option(
            metavar="METHOD", help=";  ".join(f"[bold]{name}[/]: {text}" for name, text in _METHODS.items())
        ),
    ] = "softmax",
    steps: Annotated[
        int | None, typer.Option(min=1, help="Length of training.", show_default="the recipe's")
    ] = None,
    epochs: Annotated[float | None, typer.Option(min=0, help="Or so many passes over the images.")] = None,
    minutes: Annotated[float | None, typer.Option(min=0, help="Or about so many minutes.")] = None,
    seed: Seed = 0,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder of the run.", show_default="runs/DATA-METHOD-SEED"),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in the output folder, to the same bits.")
    ] = False,
    omniglot: Omniglot = None,
    size: Annotated[int, typer.Option(min=8, help="Side of the images, for your own.")] = 28,
    drawn: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="For your own single characters: cut each image to its ink, this many pixels long.",
        ),
    ] = None,
    color: Annotated[bool, typer.Option("--color", help="Keep the colours of your own images.")] = False,
    rotations: Annotated[
        bool | None,
        typer.Option(
            help="Quarter turns of a class as classes of their own: for characters.",
            show_default="on for glyphs and omniglot",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a network. Ctrl-C saves; the same command with --resume continues.

    Writes the model (for predict, compare, embed, evaluate), its checkpoint, history.csv and curve.png.

    [bold]Examples:[/]

    siamese-fast train --data my_images --method triplets --minutes 3

    siamese-fast train --data omniglot --omniglot DIR --method softmax
    """
    if method not in get_args(Method):
        raise typer.BadParameter(
            f"{method!r} is none of {', '.join(get_args(Method))}", param_hint="--method"
        )
    length = {"steps": steps, "epochs": epochs, "minutes": minutes}
    given: dict[str, Any] = {name: value for name, value in length.items() if value is not None}
    if len(given) > 1:
        raise typer.BadParameter("give one length only", param_hint=" / ".join(f"--{name}" for name in given))
    turned = source in ("glyphs", "omniglot") if rotations is None else rotations
    job = Job(source, cast(Method, method), seed, size, drawn, color, turned, given)
    recipe, inputs, images = _prepare(job, omniglot)
    folder = output or Path("runs") / f"{Path(source).stem}-{method}-{seed}"
    _claim(folder, job, resume)
    note(f"training {method} on {len(images)} images of {images.num_classes} classes; the run is in {folder}")
    validate = one_shot_validation(recipe, omniglot) if _has_validation(source, omniglot) else None
    try:
        with blaming("--data"):
            network, history = train_recipe(
                recipe,
                seed,
                images=images,
                validate=validate,
                validate_every=0 if source == "omniglot" else 100,
                checkpoint=folder / CHECKPOINT,
                resume=resume,
                log_csv=folder / HISTORY,
                **given,
            )
    except KeyboardInterrupt:
        note("stopped; the same command with --resume continues")
        raise
    about = {**_described(job), "classes": images.num_classes, "images": len(images)}
    save_model(folder, Model(network, inputs, about), history)
    curve = _draw_curve(history, folder / CURVE)
    result = {"folder": str(folder), **about, **history.rows[-1], "curve": curve}
    emit(result, as_json, lambda console: _show(console, folder, history))


def _prepare(job: Job, omniglot: Path | None) -> tuple[Recipe, Inputs, ImageSet]:
    """The recipe, how the network's images are prepared, and the training images."""
    kind = "glyphs" if job.data == "glyphs" else "omniglot"
    base = RECIPES.get(f"{kind}-{job.method}") or replace(RECIPES[f"{kind}-softmax"], method=job.method)
    recipe = replace(base, rotations=job.rotations)
    if job.data == "glyphs":
        return recipe, inputs_of(recipe), data.glyphs("train")
    if job.data == "omniglot":
        if omniglot is None:
            raise typer.BadParameter(
                "the folder of Omniglot's archives is needed for --data omniglot", param_hint="--omniglot"
            )
        with blaming("--omniglot"):
            images = data.omniglot(omniglot, size=recipe.augment.size, drawn=recipe.drawn)
            return recipe, inputs_of(recipe), images
    if not Path(job.data).exists():
        raise typer.BadParameter(
            f"{job.data} is neither glyphs, omniglot, a folder nor a CSV file", param_hint="--data"
        )
    recipe = replace(recipe, augment=replace(recipe.augment, size=job.size))
    inputs = Inputs(job.size, job.drawn, job.color)
    # Characters cut to their ink get a margin, as the glyphs have, so that augmentation has room to move.
    wider = replace(inputs, size=round(job.size * _MARGIN)) if job.drawn else inputs
    with blaming("--data"):
        return recipe, inputs, wider.load(job.data)


def _has_validation(source: str, omniglot: Path | None) -> bool:
    if source == "omniglot" and omniglot is not None:
        return any((omniglot / name).exists() for name in ("all_runs.zip", "all_runs"))
    return source == "glyphs"


def _claim(folder: Path, job: Job, resume: bool) -> None:
    """Write down what this folder is for; refuse to mix two runs in one."""
    path = folder / "job.json"
    described = _described(job)
    if resume:
        if not path.is_file():
            raise typer.BadParameter(f"{folder} holds no run to continue", param_hint="--resume")
        before = json.loads(path.read_text())
        changed = [name for name in described if before.get(name) != described[name]]
        if changed:
            was = ", ".join(f"{name}={before.get(name)}" for name in changed)
            raise typer.BadParameter(
                f"the run in {folder} had {was}; give the same options", param_hint="--resume"
            )
        return
    if path.is_file() or (folder / WEIGHTS).is_file() or (folder / ABOUT).is_file():
        raise typer.BadParameter(
            f"{folder} already holds a run: continue it with --resume, or name another", param_hint="--output"
        )
    with blaming("--output"):
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(described, indent=2) + "\n")


def _described(job: Job) -> dict[str, Any]:
    return dict(vars(job))


def _draw_curve(history: History, path: Path) -> str | None:
    """The learning curve, where matplotlib is installed."""
    from siamese_fast import plots

    try:
        fig = plots.figure(7, 4)
    except ImportError:
        return None
    name = "accuracy" if any("accuracy" in row for row in history.rows) else "loss"
    axes = fig.add_subplot()
    plots.draw_curves(axes, [(name, *history.curve(name))], x="step", y=name)
    fig.tight_layout()
    return str(plots.save(fig, path))


def _show(console: Console, folder: Path, history: History) -> None:
    last = history.rows[-1]
    rows = table("run", str(folder))
    rows.add_row("steps", f"{last['step']:.0f}")
    rows.add_row("seconds", f"{last['seconds']:.0f} ({last['cpu_seconds']:.0f} CPU)")
    rows.add_row("loss", f"{last['loss']:.4f}")
    if "accuracy" in last:
        rows.add_row("20-way 1-shot accuracy on unseen classes", percent(last["accuracy"]))
    console.print(rows)
    console.print(f"\nNext:  siamese-fast evaluate --model {folder}")
