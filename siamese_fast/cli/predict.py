"""`siamese-fast predict`: name one's own images from one or a few examples of each class."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from siamese_fast import plots
from siamese_fast.cli._common import Json, ModelOption, blaming, emit, get_model, percent, table
from siamese_fast.cli.embed import find_images

_REDUCTIONS = {"nearest": "max", "mean": "mean", "prototype": "prototype"}
_UNKNOWN = "unknown"
_RANKED, _DRAWN_SUPPORT, _DRAWN_QUERIES = 5, 40, 60


def predict(
    support: Annotated[
        Path, typer.Option(help="Folder of class folders: CLASS/IMAGE.png, one or more images of each class.")
    ],
    query: Annotated[Path, typer.Option(help="Folder of images to name, or one image.")],
    model: ModelOption = "softmax",
    reduce: Annotated[
        str,
        typer.Option(
            metavar="REDUCE",
            help="Several examples of a class: the nearest, their mean score, or their prototype.",
        ),
    ] = "nearest",
    unknown: Annotated[
        bool,
        typer.Option(
            "--unknown",
            help="Answer unknown where no example passes the model's threshold for the same class.",
        ),
    ] = False,
    picture: Annotated[
        Path | None, typer.Option(help="Draw supports, queries and answers into this file.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Name images from one example each of their classes, which the model need never have seen.

    Where all queries lie in folders named as classes are, these count as the right answers and the accuracy
    is printed too.

    [bold]Example:[/] siamese-fast predict --support examples --query unknown_letters --picture answers.png
    """
    if reduce not in _REDUCTIONS:
        raise typer.BadParameter(f"{reduce!r} is none of {', '.join(_REDUCTIONS)}", param_hint="--reduce")
    if not support.is_dir():
        raise typer.BadParameter(f"{support} is not a folder", param_hint="--support")
    files, names = find_images(query, "--query")
    named = get_model(model)
    inputs = named.model.inputs
    with blaming("--support"):
        examples = inputs.load(support)
        labels = [examples.classes[label] for label in examples.labels.tolist()]
        classifier = named.model.classifier(
            reduce=_REDUCTIONS[reduce], unknown_label=_UNKNOWN if unknown else None
        )
        classifier.fit(examples.tensor(), labels)
    with blaming("--query"):
        images = inputs.read(files)
        answers, ties = classifier.predict(images, return_ties=True)
        probabilities = classifier.predict_proba(images)
    truth = [Path(name).parent.name for name in names]
    known = all(name in examples.classes for name in truth)
    predictions = [
        {
            "file": name,
            "answer": str(answers[row]),
            "probability": float(probabilities[row].max()),
            "ranking": _ranking(classifier.classes_, probabilities[row]),
            "ties": int(ties[row]),
            **({"truth": truth[row]} if known else {}),
        }
        for row, name in enumerate(names)
    ]
    result: dict[str, Any] = {
        "model": named.name,
        "classes": list(examples.classes),
        "predictions": predictions,
    }
    if known:
        result["accuracy"] = float(
            np.mean([answer == right for answer, right in zip(answers, truth, strict=True)])
        )
    if picture is not None:
        with blaming("--picture"):
            result["picture"] = _draw(
                picture, examples.tensor(), labels, images, predictions, truth if known else None
            )
    emit(result, as_json, lambda console: _show(console, result))


def _ranking(classes: Any, probabilities: Any) -> list[dict[str, Any]]:
    order = np.argsort(-probabilities, kind="stable")[:_RANKED]
    return [{"class": str(classes[index]), "probability": float(probabilities[index])} for index in order]


def _draw(
    path: Path,
    support: Any,
    labels: list[str],
    query: Any,
    predictions: list[dict[str, Any]],
    truth: list[str] | None,
) -> str:
    shown = predictions[:_DRAWN_QUERIES]
    answers = plots.Answers(
        support=support[:_DRAWN_SUPPORT],
        support_names=labels[:_DRAWN_SUPPORT],
        query=query[:_DRAWN_QUERIES],
        names=[one["answer"] for one in shown],
        probability=[one["probability"] for one in shown],
        truth=None if truth is None else truth[:_DRAWN_QUERIES],
    )
    columns = min(10, max(4, len(set(labels))))
    rows = -(-len(answers.support) // columns) - (-len(shown) // columns)
    fig = plots.figure(columns * 0.85, rows * 0.88 + 0.7)
    axes = fig.add_axes((0.02, 0.01, 0.96, 0.9))
    plots.draw_answers(axes, answers, columns)
    axes.set_title("Examples (framed), and the answers")
    return str(plots.save(fig, path, dpi=140))


def _show(console: Console, result: dict[str, Any]) -> None:
    rows = table("image", "answer", "probability", "next")
    for one in result["predictions"]:
        wrong = one.get("truth", one["answer"]) != one["answer"]
        second = one["ranking"][1] if len(one["ranking"]) > 1 else None
        rows.add_row(
            one["file"],
            f"[red]{one['answer']}[/]" if wrong else f"[bold]{one['answer']}[/]",
            percent(one["probability"]),
            f"{second['class']} {percent(second['probability'])}" if second else "-",
        )
    console.print(rows)
    tied = sum(one["ties"] > 1 for one in result["predictions"])
    if tied:
        console.print(f"\n{tied} of these are ties: several classes scored exactly the same")
    if "accuracy" in result:
        console.print(f"\naccuracy {percent(result['accuracy'])} of {len(result['predictions'])}")
    if "picture" in result:
        console.print(f"the picture: {result['picture']}")
