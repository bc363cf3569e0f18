"""Recipes: settings under which training reaches known accuracies in minutes on one CPU core.

`DATA-METHOD` names one: data `glyphs` (the embedded printed characters) or `omniglot`, method `triplets`
(batch-hard, soft margin), `softmax` (in-batch N-way over Koch logits), `bce` (all in-batch pairs, the hardest
negatives) or `pairs` (balanced random pairs, as published). Lengths are numbers of steps, so a recipe gives
the same network however loaded the machine is.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from siamese_fast.data import (
    Augmentation,
    ImageSet,
    PairSampler,
    PKSampler,
    glyphs,
    omniglot,
    omniglot_runs,
    rotations_as_classes,
)
from siamese_fast.evaluation import omniglot_runs_error, one_shot_episodes
from siamese_fast.losses import BatchHardTripletLoss, KochAllPairsLoss, KochPairLoss, KochSoftmaxLoss
from siamese_fast.network import ConvEncoder, DistanceHead, Head, KochHead, SiameseNetwork
from siamese_fast.network.siamese import whole_classes
from siamese_fast.training import FitOptions, History, Sampler, Validate, fit

Method = Literal["triplets", "softmax", "bce", "pairs"]
_CALIBRATION_IMAGES = 2000


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a training run, apart from the seed.

    Attributes:
        data: "glyphs" or "omniglot"; which loader gives the images when none are passed.
        method: "triplets", "softmax", "bce" or "pairs".
        channels, embedding_dim: of the `ConvEncoder`.
        p, k: classes and examples of each in a batch; `pairs` takes p * k / 2 pairs.
        drawn: the longest side of the ink in pixels, moved to the middle, as in `omniglot`; None keeps the
            page. Glyphs are always drawn at 20.
        augment: changes of the images.
        rotations: train every class turned by 0, 90, 180 and 270 degrees as a class of its own.
        options: of `fit`; its seed is replaced.
    """

    data: Literal["glyphs", "omniglot"]
    method: Method
    options: FitOptions
    channels: tuple[int, ...] = (32, 64, 64, 64)
    embedding_dim: int | None = None
    p: int = 32
    k: int = 4
    drawn: int | None = 20
    augment: Augmentation = field(default_factory=Augmentation)
    rotations: bool = True

    def network(self, in_channels: int = 1) -> SiameseNetwork:
        """An untrained network, from torch's global generator."""
        encoder = ConvEncoder(in_channels, self.augment.size, self.channels, embedding_dim=self.embedding_dim)
        koch = self.method != "triplets"
        head: Head = KochHead(encoder.out_features) if koch else DistanceHead("euclidean")
        return SiameseNetwork(encoder, head)

    def loss(self, network: SiameseNetwork) -> nn.Module:
        if self.method == "triplets":
            return BatchHardTripletLoss(margin=None)
        if self.method == "softmax":
            return KochSoftmaxLoss(network.head)
        return KochAllPairsLoss(network.head) if self.method == "bce" else KochPairLoss(network.head)

    def sampler(self, images: ImageSet, seed: int) -> Sampler:
        if self.method == "pairs":
            return PairSampler(images.labels, self.p * self.k // 2, seed, exclusive=images.exclusive)
        p = min(self.p, len(images.exclusive.unique()))
        return PKSampler(images.labels, p, self.k, seed, exclusive=images.exclusive)


_GLYPHS = Recipe(
    data="glyphs",
    method="softmax",
    options=FitOptions(steps=1200),
    embedding_dim=256,
    p=64,
    k=2,
    augment=Augmentation(elastic=0.09, blur=0.25),
)
_OMNIGLOT = Recipe(
    data="omniglot",
    method="triplets",
    options=FitOptions(steps=3600),
    p=64,
    k=2,
    augment=Augmentation(elastic=0.03),
)

RECIPES: dict[str, Recipe] = {
    "glyphs-softmax": _GLYPHS,
    "glyphs-triplets": replace(
        _GLYPHS, method="triplets", embedding_dim=None, p=32, k=4, augment=Augmentation(elastic=0.05)
    ),
    "omniglot-triplets": _OMNIGLOT,
    "omniglot-softmax": replace(
        _OMNIGLOT,
        method="softmax",
        options=FitOptions(steps=1500),
        p=32,
        k=4,
        augment=Augmentation(rotation=15, shear=0.2, elastic=0.05),
    ),
    "omniglot-bce": replace(_OMNIGLOT, method="bce", options=FitOptions(steps=700), p=32, k=4),
    "omniglot-pairs": replace(_OMNIGLOT, method="pairs"),
}


class Trained(NamedTuple):
    """What `train_recipe` returns."""

    network: SiameseNetwork
    history: History


def train_recipe(
    recipe: Recipe | str,
    seed: int = 0,
    *,
    images: ImageSet | None = None,
    root: str | Path | None = None,
    validate: Validate | None = None,
    **options: Any,
) -> Trained:
    """Train a network as a recipe says, and calibrate its probabilities on the training images.

    Args:
        recipe: a `Recipe`, or the name of one in `RECIPES`.
        seed: of the weights, the batches and the augmentation; the same seed gives the same bits.
        images: trained on instead of the recipe's data.
        root: where Omniglot's archives lie; needed for that data if no images are passed.
        validate: as for `fit`.
        options: fields of `FitOptions` to change (`steps`, `checkpoint`, `resume`, `log_csv`, `progress`,
            ...).

    Raises:
        KeyError: no recipe has that name.
        ValueError: neither images nor root for a recipe on Omniglot.

    Warns:
        UserWarning: the images cannot calibrate the network (no two of one class, or it did not learn).

    Example:
        >>> network, history = train_recipe("glyphs-softmax", seed=0)
        >>> network.compare(a, b)
    """
    if isinstance(recipe, str):
        if recipe not in RECIPES:
            raise KeyError(f"recipe must be one of {', '.join(RECIPES)}, got {recipe!r}")
        recipe = RECIPES[recipe]
    if images is None:
        images = _load(recipe, root)
    training = rotations_as_classes(images) if recipe.rotations else images
    torch.manual_seed(seed)
    network = recipe.network(in_channels=images.tensor([0]).shape[1])
    history = fit(
        network,
        recipe.loss(network),
        training,
        recipe.sampler(training, seed),
        replace(recipe.options, seed=seed, **_lengths(options)),
        augment=recipe.augment,
        validate=validate,
    )
    _calibrate(network, images, recipe.augment, seed)
    return Trained(network, history)


def one_shot_validation(recipe: Recipe, root: str | Path | None = None) -> Validate:
    """A `validate` for `train_recipe`: 20-way 1-shot `accuracy` on alphabets that are not trained on.

    Glyphs: 50 episodes within the held-out alphabets. Omniglot: its official runs. Nothing is
    chosen by the result: a recipe always ends with its last weights.

    Raises:
        ValueError: no root for Omniglot.
    """
    if recipe.data == "glyphs":
        test = glyphs("test")
        return lambda network: {
            "accuracy": one_shot_episodes(network, test, n_way=20, n_episodes=50, pixels=False).accuracy
        }
    runs = omniglot_runs(_needed(root), recipe.augment.size, drawn=recipe.drawn)
    return lambda network: {"accuracy": 1 - omniglot_runs_error(network, runs, pixels=False).error}


def _needed(root: str | Path | None) -> str | Path:
    if root is None:
        raise ValueError("root must be the folder that holds Omniglot's archives, got None")
    return root


def _load(recipe: Recipe, root: str | Path | None) -> ImageSet:
    if recipe.data == "glyphs":
        return glyphs("train")
    return omniglot(_needed(root), size=recipe.augment.size, drawn=recipe.drawn)


def _lengths(options: dict[str, Any]) -> dict[str, Any]:
    """The options to change; a length given as epochs or minutes takes the place of the recipe's steps."""
    if options.keys() & {"epochs", "minutes"}:
        return {"steps": None, **options}
    return options


def _calibrate(network: SiameseNetwork, images: ImageSet, augment: Augmentation, seed: int) -> None:
    """On augmented training images: as they are, a network finds them easier than anything it will meet."""
    chosen = whole_classes(images.labels, _CALIBRATION_IMAGES, seed)
    changed = augment(images.tensor(chosen), torch.Generator().manual_seed(seed))
    try:
        network.calibrate(changed, images.labels[chosen])
    except ValueError as error:
        # Minutes of training are not thrown away: scores still rank, only probabilities are off.
        warnings.warn(f"the network is not calibrated: {error}", stacklevel=3)
