"""Pictures (extra `plots`): one-shot answers beside their supports, maps of embeddings, learning curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from siamese_fast._extras import require

INK, FAINT, RIGHT, WRONG = "#1d2733", "#8a94a0", "#1b7f5c", "#c8372d"
CURVES = ("#2457a6", "#d9822b", "#1b7f5c", "#7b4ea3")
_PITCH = 1.1
_STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 10.0,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "svg.hashsalt": "siamese_fast",
}


@dataclass(frozen=True)
class Answers:
    """One-shot answers to draw.

    Attributes:
        support: images `[S, C, H, W]` in [0, 1], and `support_names` `[S]`.
        query: images `[Q, C, H, W]`, in the order drawn.
        names: the answer to each query, `probability` its probability.
        truth: the right answers; None where nobody knows.
    """

    support: Tensor
    support_names: Sequence[str]
    query: Tensor
    names: Sequence[str]
    probability: Sequence[float]
    truth: Sequence[str] | None = None


def figure(width: float, height: float) -> Any:
    """An empty matplotlib figure in this package's style; drawn without a display."""
    matplotlib = require("matplotlib", extra="plots")
    matplotlib.rcParams.update(_STYLE)
    return require("matplotlib.figure", extra="plots").Figure(figsize=(width, height), facecolor="white")


def save(fig: Any, path: str | Path, dpi: int = 110) -> Path:
    """Write a figure; the folder is created."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    fig.savefig(path, dpi=dpi, metadata={"Software": None} if path.suffix == ".png" else None)
    return path


def draw_answers(axes: Any, answers: Answers, columns: int = 10) -> None:
    """The support set in a first block, framed; below it every query with its answer and probability.

    A right answer is green, a wrong one red; ink alone where the truth is not known.
    """
    _bare(axes)
    rows_of_support = -(-len(answers.support) // columns)
    rows_of_queries = -(-len(answers.query) // columns)
    for place, (image, name) in enumerate(zip(answers.support, answers.support_names, strict=True)):
        row, column = place // columns * _PITCH, place % columns
        _tile(axes, image, column, row, frame=CURVES[0])
        _caption(axes, _short(name), column, row, CURVES[0], bold=True)
    first = rows_of_support * _PITCH + 0.3
    axes.axhline(first - 0.2, color=FAINT, linewidth=0.8)
    for place, image in enumerate(answers.query):
        row, column = first + place // columns * _PITCH, place % columns
        right = None if answers.truth is None else answers.truth[place] == answers.names[place]
        color = INK if right is None else RIGHT if right else WRONG
        _tile(axes, image, column, row, frame=None if right in (None, True) else WRONG)
        text = f"{_short(answers.names[place])}  {100 * answers.probability[place]:.0f}%"
        _caption(axes, text, column, row, color, bold=right is False)
    axes.set_xlim(-0.08, columns - 0.04)
    axes.set_ylim(first + rows_of_queries * _PITCH, -0.1)


def draw_strip(axes: Any, images: Tensor, columns: int) -> None:
    """Images side by side, without words."""
    _bare(axes)
    for place, image in enumerate(images):
        row, column = divmod(place, columns)
        _tile(axes, image, column, row, side=0.92)
    axes.set_xlim(-0.08, columns)
    axes.set_ylim(-(-len(images) // columns), -0.06)


def draw_map(axes: Any, embeddings: Tensor, labels: Tensor, names: Sequence[str], seed: int = 0) -> None:
    """Embeddings `[N, D]` in the plane by t-SNE, one colour a class, its name where the class lies."""
    manifold = require("sklearn.manifold", extra="data")
    points = manifold.TSNE(perplexity=min(30, (len(labels) - 1) / 3), init="pca", random_state=seed)
    xy = points.fit_transform(embeddings.double().cpu().numpy())
    colormap = require("matplotlib", extra="plots").colormaps["tab10" if len(names) <= 10 else "tab20"]
    outline = require("matplotlib.patheffects", extra="plots").withStroke(linewidth=3, foreground="white")
    _bare(axes, equal=False)
    index = labels.cpu().numpy()
    for label, name in enumerate(names):
        members = xy[index == label]
        if not len(members):
            continue
        color = colormap(label % colormap.N)
        axes.scatter(*members.T, s=9, color=color, alpha=0.75, linewidths=0)
        middle = np.median(members, axis=0)
        centre = members[np.linalg.norm(members - middle, axis=1).argmin()]
        axes.text(
            *centre, name, ha="center", va="center", fontsize=14, fontweight="bold", color=color
        ).set_path_effects([outline])


def draw_curves(
    axes: Any,
    curves: Sequence[tuple[str, Sequence[float], Sequence[float]]],
    *,
    x: str,
    y: str,
    baseline: tuple[str, float] | None = None,
    percent: bool = False,
) -> None:
    """Named curves (name, x values, y values), and a dashed line for what needs no training."""
    scale = 100.0 if percent else 1.0
    for (name, across, up), color in zip(curves, CURVES, strict=False):
        axes.plot(across, [scale * value for value in up], color=color, linewidth=2, label=name)
    if baseline is not None:
        axes.axhline(
            scale * baseline[1], color=FAINT, linewidth=1.3, linestyle=(0, (5, 3)), label=baseline[0]
        )
    axes.set(xlabel=x, ylabel=y)
    axes.grid(axis="y", color="#e6e9ed", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.legend(loc="best", fontsize=9)


def _bare(axes: Any, *, equal: bool = True) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    if equal:
        axes.set_aspect("equal", anchor="NW")


def _tile(
    axes: Any, image: Tensor, column: float, row: float, side: float = 0.78, frame: str | None = None
) -> None:
    extent = (column, column + side, row + side, row)
    if image.shape[0] == 3:
        axes.imshow(image.permute(1, 2, 0).numpy(), extent=extent, interpolation="nearest", zorder=1)
    else:
        paper = (1 - torch.clamp(image[0], 0, 1)).numpy()
        axes.imshow(paper, cmap="gray", vmin=0, vmax=1, extent=extent, interpolation="bilinear", zorder=1)
    patches = require("matplotlib.patches", extra="plots")
    edge: dict[str, Any] = {"edgecolor": frame or "#dfe3e8", "linewidth": 1.8 if frame else 0.7}
    axes.add_patch(patches.Rectangle((column, row), side, side, fill=False, zorder=2, **edge))


def _caption(axes: Any, text: str, column: float, row: float, color: str, *, bold: bool) -> None:
    weight = "bold" if bold else "normal"
    axes.text(
        column + 0.39,
        row + 0.9,
        text,
        ha="center",
        va="center",
        fontsize=8.5,
        color=color,
        fontweight=weight,
    )


def _short(name: str) -> str:
    return name if len(name) <= 9 else name[:8] + "…"
