"""The picture of the demonstration: answers beside their support set, a map of embeddings, learning
curves.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from siamese_fast import data, plots
from siamese_fast.data import Augmentation, EpisodeSampler
from siamese_fast.demo import TITLES, DemoResult

_COLUMNS, _ROWS, _MAPPED, _LETTERS = 10, 6, 700, 54
_LEGEND = "Below each digit the answer and its probability: green is right, red is wrong. Drawn at random."


def draw_demo(results: Sequence[DemoResult], path: str | Path) -> Path:
    """Draw the results of both methods; answers and map are those of the better one on the digits."""
    best = max(results, key=lambda result: result.digits.accuracy)
    fig = plots.figure(12.4, 8.4)
    fig.text(
        0.03,
        0.962,
        "Trained only on printed letters, reads handwritten digits from one example each",
        fontsize=17.5,
        fontweight="bold",
    )
    fig.text(0.03, 0.927, _summary(best), fontsize=11.5, color=plots.FAINT)
    grid = fig.add_gridspec(
        1, 2, width_ratios=(1.22, 1), left=0.03, right=0.975, top=0.88, bottom=0.075, wspace=0.1
    )
    left = grid[0].subgridspec(2, 1, height_ratios=(1.12, 5.4), hspace=0.14)
    right = grid[1].subgridspec(2, 1, height_ratios=(1.35, 1), hspace=0.26)
    _draw_letters(fig.add_subplot(left[0]))
    _draw_digits(fig.add_subplot(left[1]), best)
    _draw_map(fig.add_subplot(right[0]), best)
    _draw_curves(fig.add_subplot(right[1]), results)
    fig.text(0.03, 0.045, _LEGEND, fontsize=9.5, color=plots.FAINT)
    return plots.save(fig, path)


def _summary(best: DemoResult) -> str:
    digits, letters = (
        f"{100 * r.accuracy:.1f} % (raw pixels {100 * _pixels(r):.1f} %)" for r in (best.digits, best.letters)
    )
    return (
        f"Handwritten digits, 10-way: {digits}.   Unseen alphabets, 20-way: {letters}.   "
        f"Training: {best.history.last('cpu_seconds'):.0f} CPU seconds."
    )


def _pixels(result: Any) -> float:
    return result.pixels if result.pixels is not None else float("nan")


def _draw_letters(axes: Any) -> None:
    letters = data.glyphs("train")
    generator = torch.Generator().manual_seed(3)
    classes = torch.randperm(letters.num_classes, generator=generator)[:_LETTERS]
    examples = torch.stack([torch.where(letters.labels == label)[0][0] for label in classes])
    drawn = Augmentation(elastic=0.05, gain=0.0)(letters.tensor(examples), generator)
    plots.draw_strip(axes, drawn, columns=_LETTERS // 3)
    axes.set_title("What it was trained on: printed letters, redrawn with a pen")


def _draw_digits(axes: Any, best: DemoResult) -> None:
    digits = data.digits()
    episode = next(iter(EpisodeSampler(digits.labels, 10, 1, _ROWS, 1, seed=0)))
    support = episode.support[digits.labels[episode.support].argsort()]
    query = _by_class(episode.query, digits.labels).T.reshape(-1)
    names = [digits.classes[label] for label in digits.labels[support].tolist()]
    classifier = best.model.classifier().fit(digits.tensor(support), names)
    probability = classifier.predict_proba(digits.tensor(query))
    answers = plots.Answers(
        support=digits.tensor(support),
        support_names=names,
        query=digits.tensor(query),
        names=[str(name) for name in classifier.predict(digits.tensor(query))],
        probability=probability.max(1).tolist(),
        truth=[digits.classes[label] for label in digits.labels[query].tolist()],
    )
    plots.draw_answers(axes, answers, _COLUMNS)
    axes.set_title("One example of each digit (framed); below, the answers to others")


def _by_class(indices: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The same indices, one row a class."""
    return indices[labels[indices].argsort(stable=True)].view(_COLUMNS, -1)


def _draw_map(axes: Any, best: DemoResult) -> None:
    digits = data.digits()
    shown = torch.randperm(len(digits), generator=torch.Generator().manual_seed(0))[:_MAPPED]
    embeddings = best.model.network.encode(digits.tensor(shown))
    plots.draw_map(axes, embeddings, digits.labels[shown], digits.classes)
    axes.set_title("Embeddings of handwritten digits (t-SNE)")


def _draw_curves(axes: Any, results: Sequence[DemoResult]) -> None:
    curves = []
    for result in results:
        rows = [row for row in result.history.rows if "accuracy" in row]
        curves.append(
            (TITLES[result.method], [r["cpu_seconds"] for r in rows], [r["accuracy"] for r in rows])
        )
    baseline = ("nearest raw pixels", _pixels(results[0].letters))
    plots.draw_curves(
        axes, curves, x="CPU seconds of training", y="accuracy, %", baseline=baseline, percent=True
    )
    axes.set_title("Learning: 20-way 1-shot on alphabets it never saw")
