"""N-way k-shot episodes: the accuracy on a fixed list of small tasks, with a 95 % confidence interval.

Each query is decided alone. A tie among m classes with the right one among them counts 1/m, so a network that
answers the same for everything scores 1/N and not 100 %.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from siamese_fast.data.digits import digits
from siamese_fast.data.imageset import ImageSet
from siamese_fast.data.samplers import Episode, EpisodeSampler
from siamese_fast.evaluation._common import Embedded, Model, Result


@dataclass(frozen=True)
class OneShotResult(Result):
    """Accuracy over episodes.

    Attributes:
        accuracy: mean over episodes, 0 .. 1.
        confidence: half the width of its 95 % interval, 1.96 standard errors over the episodes.
        pixels: the accuracy of the nearest raw pixels on the same episodes; None if not asked for.
        n_way, k_shot, n_episodes: what was run.
    """

    accuracy: float
    confidence: float
    pixels: float | None
    n_way: int
    k_shot: int
    n_episodes: int


def one_shot_episodes(
    model: Model,
    images: ImageSet,
    *,
    n_way: int = 20,
    k_shot: int = 1,
    n_query: int | None = 5,
    n_episodes: int = 400,
    within_groups: bool = True,
    seed: int = 0,
    pixels: bool = True,
) -> OneShotResult:
    """Accuracy on N-way k-shot episodes drawn from `images`.

    Args:
        model: an encoder or network; or a classifier, to choose its metric or how k shots are combined.
        n_query: queries of each class; None for every image that is not support.
        within_groups: draw the classes of an episode from one group (alphabet), the harder task.
        seed: of the list of episodes, which is the same for every model.
        pixels: measure the raw-pixel baseline too.

    Raises:
        ValueError: no group holds `n_way` classes with enough images.

    Example:
        >>> one_shot_episodes(network, data.glyphs("test"), n_way=20, n_episodes=200).accuracy
    """
    groups = images.groups if within_groups else None
    episodes = EpisodeSampler(images.labels, n_way, k_shot, n_query, n_episodes, groups=groups, seed=seed)
    accuracies = _accuracies(Embedded(model, images), episodes)
    return OneShotResult(
        accuracy=statistics.fmean(accuracies),
        confidence=half_width(accuracies),
        pixels=statistics.fmean(_accuracies(Embedded.pixels(images), episodes)) if pixels else None,
        n_way=n_way,
        k_shot=k_shot,
        n_episodes=n_episodes,
    )


def digits_one_shot(
    model: Model, *, size: int = 28, drawn: int = 20, supports: int = 200, seed: int = 0, pixels: bool = True
) -> OneShotResult:
    """10-way 1-shot accuracy on scikit-learn's handwritten digits.

    One support image a digit, all 1,787 other images as queries, over a fixed list of `supports` random
    support sets; images as `siamese_fast.data.digits(size, drawn)` makes them.

    Example:
        >>> digits_one_shot(network).accuracy
    """
    return one_shot_episodes(
        model,
        digits(size=size, drawn=drawn),
        n_way=10,
        n_query=None,
        n_episodes=supports,
        within_groups=False,
        seed=seed,
        pixels=pixels,
    )


def half_width(values: list[float]) -> float:
    """Half the 95 % interval of their mean; 0 for a single value."""
    return 1.96 * statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0


def _accuracies(embedded: Embedded, episodes: Iterable[Episode]) -> list[float]:
    vectors, classifier = embedded.vectors, embedded.on_embeddings
    return [
        classifier.fit(vectors[e.support], e.support_labels).score(vectors[e.query], e.query_labels)
        for e in episodes
    ]
