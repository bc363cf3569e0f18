"""What the subcommands share: options, models and data by name, and output for people or for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_args

import typer
from rich.console import Console
from rich.table import Table

from siamese_fast import data
from siamese_fast.data import ImageSet
from siamese_fast.models import DefaultMethod, Inputs, Model, default_folder, default_model, load_model

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on standard output, and nothing else there.")
]
Seed = Annotated[int, typer.Option(help="The same seed gives the same result.")]
ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        help="Folder written by [bold]train[/] or [bold]demo[/]; or a default network for single characters, "
        "[bold]softmax[/] or [bold]triplets[/], trained on printed letters at its first use.",
    ),
]
Omniglot = Annotated[
    Path | None,
    typer.Option(envvar="SIAMESE_FAST_OMNIGLOT", help="Folder with Omniglot's archives, as downloaded."),
]


class Named(NamedTuple):
    """A model and what the user called it."""

    name: str
    model: Model


@contextmanager
def blaming(option: str) -> Iterator[None]:
    """Errors of the library inside the block become errors of this option: what it was given is wrong."""
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        text = (
            f"{error.strerror}: {error.filename}"
            if isinstance(error, OSError) and error.filename
            else str(error)
        )
        raise typer.BadParameter(text, param_hint=option) from error


def get_model(name: str) -> Named:
    """A model folder, or a default network by its method."""
    for method in get_args(DefaultMethod):
        if name == method:
            if not default_folder(method).is_dir():
                note(f"training the default network ({method}) on printed letters, once: a few minutes ...")
            return Named(f"default ({method})", default_model(method))
    if not Path(name).is_dir():
        known = " or ".join(get_args(DefaultMethod))
        raise typer.BadParameter(f"{name} is neither a folder nor {known}", param_hint="--model")
    with blaming("--model"):
        return Named(name, load_model(name))


def get_images(name: str, inputs: Inputs, option: str) -> ImageSet:
    """A test set: digits, glyphs (the held-out alphabets), a folder of class folders, or a CSV file."""
    with blaming(option):
        if name == "digits":
            return data.digits(size=inputs.size, drawn=round(inputs.size * 20 / 28))
        if name == "glyphs":
            return data.glyphs("test", size=inputs.size)
        if not Path(name).exists():
            raise ValueError(f"{name} is neither digits, glyphs, omniglot, a folder nor a CSV file")
        return inputs.load(name)


def note(text: str) -> None:
    """A word to the user, never to a program: on standard error."""
    Console(stderr=True, highlight=False).print(text, style="dim")


def emit(result: dict[str, Any], as_json: bool, show: Callable[[Console], None]) -> None:
    """The result, as JSON or as `show` draws it."""
    if as_json:
        json.dump(result, sys.stdout, indent=2, ensure_ascii=False, allow_nan=False)
        print()
    else:
        show(Console(highlight=False))


def table(*columns: str, title: str | None = None) -> Table:
    """A table whose first column holds words and whose others hold numbers."""
    built = Table(
        title=title, title_justify="left", title_style="bold", header_style="bold", box=None, pad_edge=False
    )
    for index, column in enumerate(columns):
        built.add_column(column, justify="left" if index == 0 else "right", overflow="fold")
    return built


def percent(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{100 * value:.{digits}f} %"
