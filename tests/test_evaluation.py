"""Evaluations against values worked out by hand, or by an independent formula, on small data."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from siamese_fast import evaluation
from siamese_fast.data import ImageSet, OneShotRun
from siamese_fast.evaluation import one_shot
from siamese_fast.network import DistanceHead, KochHead, SiameseNetwork
from siamese_fast.prediction import OneShotClassifier


def image_set(per_class: int = 6, classes: int = 5, noise: float = 0.0, seed: int = 0) -> ImageSet:
    """Class c is a bright pixel at place c, plus noise; two groups of classes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(classes).repeat_interleave(per_class)
    images = torch.zeros(len(labels), 3, 4)
    images.view(len(labels), 12)[torch.arange(len(labels)), labels] = 200
    images = (images + noise * torch.rand(images.shape, generator=generator)).clamp(0, 255).to(torch.uint8)
    names = tuple(str(c) for c in range(classes))
    return ImageSet(images, labels, names, torch.arange(classes) % 2, ("even", "odd"))


def constant(images: Tensor) -> Tensor:
    return torch.ones(len(images), 3)


def network() -> SiameseNetwork:
    torch.manual_seed(0)
    return SiameseNetwork(nn.Sequential(nn.Flatten(), nn.Linear(12, 8)), KochHead(8))


def test_episodes_of_a_perfect_and_of_a_constant_encoder() -> None:
    images = image_set()
    perfect = evaluation.one_shot_episodes(nn.Flatten(), images, n_way=2, n_query=3, n_episodes=20)
    assert (perfect.accuracy, perfect.confidence, perfect.pixels) == (1.0, 0.0, 1.0)
    useless = evaluation.one_shot_episodes(
        constant, images, n_way=5, n_query=1, n_episodes=20, within_groups=False, pixels=False
    )
    assert useless.accuracy == pytest.approx(1 / 5)
    assert useless.pixels is None
    assert json.loads(json.dumps(useless.to_dict()))["n_way"] == 5


def test_the_interval_is_1_96_standard_errors() -> None:
    values = [0.2, 0.4, 0.9, 0.5]
    assert one_shot.half_width(values) == pytest.approx(1.96 * np.std(values, ddof=1) / 2)
    result = evaluation.one_shot_episodes(
        nn.Flatten(), image_set(noise=250), n_way=2, n_query=1, n_episodes=50
    )
    assert 0 < result.confidence < 0.2
    assert result.accuracy == result.pixels


def test_a_classifier_brings_its_settings_and_stays_unfitted() -> None:
    images = image_set(noise=250)
    classifier = OneShotClassifier(nn.Flatten(), metric="manhattan", reduce="prototype")
    settings = {"n_way": 2, "k_shot": 3, "n_query": 2, "n_episodes": 30, "pixels": False}
    by_classifier = evaluation.one_shot_episodes(classifier, images, **settings)
    assert by_classifier != evaluation.one_shot_episodes(nn.Flatten(), images, **settings)
    assert not classifier.__sklearn_is_fitted__()


def test_digits_baseline_is_the_known_one() -> None:
    result = evaluation.digits_one_shot(nn.Flatten(), supports=20, pixels=False)
    assert (result.n_way, result.k_shot, result.n_episodes) == (10, 1, 20)
    assert 0.58 < result.accuracy < 0.70
    assert result == evaluation.digits_one_shot(nn.Flatten(), supports=20, pixels=False)


def run(name: str = "run01") -> OneShotRun:
    """Twenty supports; the queries are the same images in another order."""
    support = torch.zeros(20, 1, 28, 28)
    for row in range(20):
        support[row, 0, 1 + row, 2 : 12 + row // 2] = 1
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    return OneShotRun(name, support, support[order], order)


def test_runs_without_and_with_views() -> None:
    runs = [run("run01"), run("run02")]
    plain = evaluation.omniglot_runs_error(nn.Flatten(), runs)
    assert (plain.error, plain.standard_error, plain.pixels, plain.views) == (0.0, 0.0, 0.0, 1)
    assert evaluation.omniglot_runs_error(constant, runs, pixels=False).error == pytest.approx(19 / 20)
    views, jitters = evaluation.right_angles(), evaluation.jitters(3, seed=5)
    more = evaluation.omniglot_runs_error(nn.Flatten(), runs, views=views, jitters=jitters, pixels=False)
    assert more.views == 36 and more.pixels is None and more.error < 0.5
    assert more == evaluation.omniglot_runs_error(
        nn.Flatten(), runs, views=views, jitters=jitters, pixels=False
    )
    with pytest.raises(ValueError, match="at least one run"):
        evaluation.omniglot_runs_error(nn.Flatten(), [])


def test_the_best_jitter_counts_and_views_are_averaged() -> None:
    """Against the formula, written out over all pairs of changed images."""
    generator = torch.Generator().manual_seed(0)
    support, query = torch.rand(2, 20, 1, 6, 6, generator=generator)
    views, jitters = evaluation.right_angles()[:2], (lambda x: x, lambda x: x.roll(1, -1), lambda x: x**3)
    scores = torch.stack(
        [
            -torch.cdist(a(view(query)).flatten(1), b(view(support)).flatten(1))
            for view in views
            for a in jitters
            for b in jitters
        ]
    ).view(2, 9, 20, 20)
    right = scores.amax(1).mean(0).argmax(1)
    assert not right.equal(scores.mean((0, 1)).argmax(1)) and not right.equal(scores.amax((0, 1)).argmax(1))
    for answer, error in ((right, 0.0), ((right + 1) % 20, 1.0)):
        whole = OneShotRun("run01", support, query, answer)
        found = evaluation.omniglot_runs_error(
            nn.Flatten(), [whole], views=views, jitters=jitters, pixels=False
        )
        assert (found.error, found.views) == (error, 18)


def test_each_query_of_a_run_is_decided_alone() -> None:
    whole = run()
    halves = [
        whole._replace(query=whole.query[rows], answer=whole.answer[rows])
        for rows in (slice(7), slice(7, 20))
    ]
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 2))
    together = evaluation.omniglot_runs_error(model, [whole], views=evaluation.right_angles(), pixels=False)
    apart = evaluation.omniglot_runs_error(model, halves, views=evaluation.right_angles(), pixels=False)
    assert together.error == pytest.approx((7 * apart.errors[0] + 13 * apart.errors[1]) / 20)


def test_verification_scores_by_hand() -> None:
    scores, same = [0.9, 0.8, 0.4, 0.7, 0.3, 0.2], [1, 1, 1, 0, 0, 0]
    result = evaluation.verification_of_scores(scores, same, far=0.34)
    assert result.auc == pytest.approx(8 / 9)
    assert result.eer == pytest.approx(1 / 3)
    assert (result.threshold, result.true_accepts) == (0.4, 1.0)
    strict = evaluation.verification_of_scores(scores, same, far=0.0)
    assert (strict.threshold, strict.true_accepts) == (0.8, pytest.approx(2 / 3))
    nothing = evaluation.verification_of_scores([0.1, 0.5, 0.9], [1, 1, 0], far=0.5)
    assert nothing.threshold > 0.9 and nothing.true_accepts == 0
    json.dumps(nothing.to_dict(), allow_nan=False)
    with pytest.raises(ValueError, match="both kinds of pair, got 2 of one class and 0 of two"):
        evaluation.verification_of_scores([1.0, 2.0], [1, 1])
    with pytest.raises(ValueError, match=r"far must be in \[0, 1\]"):
        evaluation.verification_of_scores(scores, same, far=2)


@pytest.mark.parametrize(
    "head", [KochHead(12), KochHead(12, hidden=(4,)), DistanceHead("cosine"), DistanceHead("dot")]
)
def test_verification_thresholds_are_on_the_scale_of_class_scores(head: nn.Module) -> None:
    images = image_set(noise=100)
    model = SiameseNetwork(nn.Flatten(), head)
    result = evaluation.verification(model, images, n_pairs=400, far=0.1)
    assert result.n_same == result.n_different == 200 and 0 <= result.eer <= 1
    assert result.pixels_auc is not None and result.pixels_auc > 0.9
    support = images.tensor()[:1]
    score = OneShotClassifier(model).fit(support, [0]).class_scores(support)[0, 0]
    limits = [score - 1, score + 1]
    rejected = [
        OneShotClassifier(model, threshold=limit, unknown_label=-1).fit(support, [0]).predict(support)[0]
        for limit in limits
    ]
    assert rejected == [0, -1]


def test_verification_of_separable_classes() -> None:
    result = evaluation.verification(nn.Flatten(), image_set(), n_pairs=200)
    assert (result.auc, result.eer, result.true_accepts, result.threshold) == (1.0, 0.0, 1.0, 0.0)


def map_at_r(vectors: Tensor, labels: Tensor) -> float:
    total = []
    for row in range(len(labels)):
        order = [
            int(i) for i in torch.cdist(vectors[row : row + 1], vectors)[0].argsort(stable=True) if i != row
        ]
        relevant = int((labels == labels[row]).sum()) - 1
        if relevant:
            hits = [bool(labels[i] == labels[row]) for i in order[:relevant]]
            total.append(sum(sum(hits[: i + 1]) / (i + 1) for i, hit in enumerate(hits) if hit) / relevant)
    return sum(total) / len(total)


def test_retrieval_agrees_with_the_definition() -> None:
    images = image_set(per_class=4, noise=255, seed=3)
    lonely = ImageSet(images.images[:-3], images.labels[:-3], images.classes)
    result = evaluation.retrieval(nn.Flatten(), lonely, k=(1, 3, 100))
    vectors = lonely.tensor().flatten(1)
    assert result.map_at_r == pytest.approx(map_at_r(vectors, lonely.labels)) == result.pixels_map_at_r
    assert result.recall[1] == pytest.approx(result.precision_at_1)
    assert result.recall[1] <= result.recall[3] <= result.recall[100] == 1.0
    assert result.n_queries == len(lonely) - 1
    assert math.isfinite(result.r_precision)


def test_retrieval_with_duplicates_never_finds_itself() -> None:
    images = image_set(per_class=6)
    result = evaluation.retrieval(constant, images, k=(1,), pixels=False)
    assert result.precision_at_1 == pytest.approx(1 / 5)
    assert evaluation.retrieval(network(), images, pixels=False).map_at_r == 1.0
    with pytest.raises(ValueError, match="k must hold numbers of at least 1"):
        evaluation.retrieval(constant, images, k=(0,))
    with pytest.raises(ValueError, match="a class with two images"):
        evaluation.retrieval(constant, image_set(per_class=1))
