"""Trained networks on disk, with what is needed to use them on image files; and the default network.

A model is a folder: `network.safetensors` (how to build the network, and its weights), `model.json` (how to
prepare images, and where the network comes from), `history.csv`. The default networks are trained once on the
embedded glyphs and kept in the cache folder.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from siamese_fast.data import ImageSet, image_csv, image_folder
from siamese_fast.data._cache import cache_dir, written_whole
from siamese_fast.data.folders import read_images
from siamese_fast.network import DistanceHead, SiameseNetwork
from siamese_fast.prediction import OneShotClassifier
from siamese_fast.recipes import RECIPES, Recipe, one_shot_validation, train_recipe
from siamese_fast.training import History

WEIGHTS, ABOUT, HISTORY = "network.safetensors", "model.json", "history.csv"
DefaultMethod = Literal["softmax", "triplets"]
_FORMAT = 1
_VALIDATE_EVERY = 100


@dataclass(frozen=True)
class Inputs:
    """How image files become what a network takes; the fields are arguments of `data.image_folder`.

    Example:
        >>> Inputs(size=28, drawn=20).read(["a.png"]).shape
        torch.Size([1, 1, 28, 28])
    """

    size: int = 28
    drawn: int | None = None
    color: bool = False

    def read(self, files: Sequence[str | Path]) -> Tensor:
        """Image files as float32 `[N, C, size, size]`, ink = 1."""
        images = read_images(files, self.size, drawn=self.drawn, color=self.color).float() / 255
        return images if images.ndim == 4 else images.unsqueeze(1)

    def load(self, path: str | Path) -> ImageSet:
        """The images of a folder of class folders, or of a CSV file of path and label."""
        read = image_csv if Path(path).suffix.lower() == ".csv" else image_folder
        return read(path, self.size, drawn=self.drawn, color=self.color)


@dataclass(frozen=True)
class Model:
    """A network, the images it takes, and where it comes from (`about`, JSON types)."""

    network: SiameseNetwork
    inputs: Inputs
    about: dict[str, Any] = field(default_factory=dict)

    def classifier(self, *, reduce: str = "max", unknown_label: str | None = None) -> OneShotClassifier:
        """An unfitted classifier whose `predict_proba` is calibrated as the network is.

        Args:
            reduce: as for `OneShotClassifier`.
            unknown_label: the answer where no support is the same class at the network's threshold; None
                always answers a known class.
        """
        head = self.network.head
        scale, bias = (float(head.scale), float(head.bias)) if isinstance(head, DistanceHead) else (1.0, 0.0)
        threshold = (_logit(float(self.network.threshold)) - bias) / scale
        return OneShotClassifier(
            self.network,
            reduce=reduce,
            temperature=1 / scale,
            threshold=None if unknown_label is None else threshold,
            unknown_label=unknown_label,
        )


def save_model(folder: str | Path, model: Model, history: History | None = None) -> None:
    """Write a model to a folder, replacing the one there."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with written_whole(folder / WEIGHTS) as partial:
        model.network.save(partial)
    if history is not None:
        history.write_csv(folder / HISTORY)
    described = {"format": _FORMAT, "inputs": dataclasses.asdict(model.inputs), **model.about}
    with written_whole(folder / ABOUT) as partial:
        partial.write_text(json.dumps(described, indent=2) + "\n")


def load_model(folder: str | Path) -> Model:
    """Read what `save_model` wrote.

    Raises:
        FileNotFoundError: the folder holds no model.
        ValueError: it was written by a newer version.
    """
    folder = Path(folder)
    missing = next((name for name in (WEIGHTS, ABOUT) if not (folder / name).is_file()), None)
    if missing:
        raise FileNotFoundError(f"{folder} holds no trained model (no {missing})")
    about = json.loads((folder / ABOUT).read_text())
    if about.pop("format", None) != _FORMAT:
        raise ValueError(f"{folder / ABOUT} is not of format {_FORMAT}, which this version reads")
    return Model(SiameseNetwork.load(folder / WEIGHTS), Inputs(**about.pop("inputs")), about)


def default_folder(method: DefaultMethod) -> Path:
    """Where the default network of a method is kept: it changes with the recipe."""
    digest = hashlib.sha256(repr(RECIPES[f"glyphs-{method}"]).encode()).hexdigest()[:12]
    return cache_dir() / "models" / f"glyphs-{method}-{digest}"


def default_model(method: DefaultMethod = "softmax", *, progress: bool = True) -> Model:
    """A network that reads single characters, trained on the embedded glyphs at the first call (minutes).

    Example:
        >>> model = default_model()
        >>> model.network.compare(model.inputs.read(["a.png"]), model.inputs.read(["b.png"]))
    """
    folder = default_folder(method)
    if not (folder / ABOUT).is_file():
        train_default(method, progress=progress)
    return load_model(folder)


def train_default(method: DefaultMethod, *, seed: int = 0, progress: bool = True) -> tuple[Model, History]:
    """Train on the glyphs, measuring one-shot accuracy on the way; seed 0 becomes the default network."""
    name = f"glyphs-{method}"
    recipe = RECIPES[name]
    network, history = train_recipe(
        recipe,
        seed,
        validate=one_shot_validation(recipe),
        validate_every=_VALIDATE_EVERY,
        progress=progress,
    )
    about = {"data": "glyphs", "method": method, "seed": seed, "seconds": history.last("seconds")}
    model = Model(network, inputs_of(recipe), about)
    if seed == 0:
        save_model(default_folder(method), model, history)
    return model, history


def inputs_of(recipe: Recipe) -> Inputs:
    """The images that a recipe's network takes."""
    return Inputs(size=recipe.augment.size, drawn=recipe.drawn)


def _logit(probability: float) -> float:
    if probability <= 0 or probability >= 1:
        return -math.inf if probability <= 0 else math.inf
    return math.log(probability / (1 - probability))
