"""Omniglot's official 20-way one-shot runs, with optional test-time views of the images.

    score(query, class) = mean over views v of  max over jitters a, b of  score(a(v(query)), b(v(support)))

A view (such as a quarter turn) is applied to query and support alike. Jitters stand for how differently two
people draw one character: every jittered query meets every jittered support, and the pair that matches best
counts, for most of the others have been moved further apart. Each query is decided alone; that the answers of
a run are a permutation is not used.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from siamese_fast.data.augment import Augmentation
from siamese_fast.data.omniglot import OneShotRun
from siamese_fast.evaluation._common import Model, Result, as_classifier, pixel_classifier
from siamese_fast.prediction import OneShotClassifier
from siamese_fast.prediction.decisions import decide

View = Callable[[Tensor], Tensor]
_JITTER = Augmentation(size=28, rotation=15, scale=0.15, shear=0.15, translation=1.5, elastic=0.03, gain=0)


@dataclass(frozen=True)
class RunsResult(Result):
    """Errors on the runs, 0 .. 1.

    Attributes:
        error: mean over all test images of (the class answered is wrong); a tie among m classes with the
            right one counts 1 - 1/m.
        standard_error: of that mean, over the runs.
        pixels: the error of the nearest raw pixels; None if not asked for.
        errors: of each run.
        views: how often each pair of images is compared.
    """

    error: float
    standard_error: float
    pixels: float | None
    errors: list[float] = field(repr=False)
    views: int


def omniglot_runs_error(
    model: Model,
    runs: Sequence[OneShotRun],
    *,
    views: Sequence[View] = (),
    jitters: Sequence[View] = (),
    pixels: bool = True,
) -> RunsResult:
    """Error on runs as `siamese_fast.data.omniglot_runs` returns them.

    Args:
        views, jitters: callables from images `[N, 1, H, W]` to images, such as `right_angles()` and
            `jitters()`. The images as they are count only if a callable returns them; without any, they are
            all there is.

    Raises:
        ValueError: there are no runs.

    Example:
        >>> runs = data.omniglot_runs("data/omniglot")
        >>> omniglot_runs_error(network, runs, views=right_angles(), jitters=jitters()).error
    """
    if not runs:
        raise ValueError("runs must hold at least one run, got none")
    views, jitters = views or (_unchanged,), jitters or (_unchanged,)
    classifier = as_classifier(model).set_params(reduce="max")
    errors = [_error(classifier, run, views, jitters) for run in runs]
    baseline = (
        [_error(pixel_classifier(), run, (_unchanged,), (_unchanged,)) for run in runs] if pixels else None
    )
    return RunsResult(
        error=statistics.fmean(errors),
        standard_error=statistics.stdev(errors) / len(errors) ** 0.5 if len(errors) > 1 else 0.0,
        pixels=None if baseline is None else statistics.fmean(baseline),
        errors=errors,
        views=len(views) * len(jitters) ** 2,
    )


def right_angles() -> tuple[View, ...]:
    """The four quarter turns, for a network that was trained on rotated classes."""
    return tuple(_turned(turns) for turns in range(4))


def jitters(count: int = 16, augmentation: Augmentation = _JITTER, *, seed: int = 0) -> tuple[View, ...]:
    """The image as it is and `count` - 1 small fixed random changes of it (by default for 28x28 pixels)."""
    return (_unchanged, *(_jittered(augmentation, seed + number) for number in range(1, count)))


def _error(
    classifier: OneShotClassifier, run: OneShotRun, views: Sequence[View], jitters: Sequence[View]
) -> float:
    total = np.zeros((len(run.query), len(run.support)))
    for view in views:
        support, query = view(run.support), view(run.query)
        labels = torch.arange(len(support)).repeat(len(jitters))
        classifier.fit(torch.cat([jitter(support) for jitter in jitters]), labels)
        scores = classifier.class_scores(torch.cat([jitter(query) for jitter in jitters]))
        total += scores.reshape(len(jitters), *total.shape).max(0)
    decisions = decide([torch.from_numpy(total)], run.answer.numpy())
    return float(1 - (decisions.asked / decisions.ties).mean())


def _unchanged(images: Tensor) -> Tensor:
    return images


def _turned(turns: int) -> View:
    return lambda images: images.rot90(turns, (-2, -1))


def _jittered(augmentation: Augmentation, seed: int) -> View:
    return lambda images: augmentation(images, torch.Generator().manual_seed(seed))
