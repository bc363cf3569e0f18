"""OneShotClassifier against brute force: ties, open set, growing and shrinking, saving, scikit-learn."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from siamese_fast.network import DistanceHead, KochHead, MLPEncoder, SiameseNetwork
from siamese_fast.prediction import OneShotClassifier

METRICS = ("euclidean", "sqeuclidean", "cosine", "dot", "manhattan")
REDUCTIONS = ("max", "mean", "prototype")


def integers(rows: int, columns: int, seed: int = 0) -> Tensor:
    """Small whole numbers: sums are exact, ties frequent."""
    return torch.randint(-3, 4, (rows, columns), generator=torch.Generator().manual_seed(seed)).float()


def score_matrix(q: Tensor, s: Tensor, metric: str) -> Tensor:
    if metric == "dot":
        return q @ s.T
    if metric == "cosine":
        return nn.functional.cosine_similarity(q[:, None], s[None], dim=2)
    if metric == "sqeuclidean":
        return -(q[:, None] - s[None]).pow(2).sum(2)
    return -torch.cdist(
        q, s, p=1 if metric == "manhattan" else 2, compute_mode="donot_use_mm_for_euclid_dist"
    )


def brute_force(q: Tensor, s: Tensor, labels: Tensor, metric: str, reduce: str) -> Tensor:
    q, s = q.double(), s.double()
    columns = []
    for label in labels.unique():
        of_class = s[labels == label]
        if reduce == "prototype":
            unit = nn.functional.normalize(of_class) if metric == "cosine" else of_class
            columns.append(score_matrix(q, unit.mean(0, keepdim=True), metric)[:, 0])
        else:
            scores = score_matrix(q, of_class, metric)
            columns.append(scores.amax(1) if reduce == "max" else scores.mean(1))
    return torch.stack(columns, 1)


@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize("metric", METRICS)
def test_class_scores_are_those_of_brute_force(metric: str, reduce: str) -> None:
    generator = torch.Generator().manual_seed(1)
    support, queries = torch.randn(23, 7, generator=generator), torch.randn(11, 7, generator=generator)
    labels = torch.arange(23) % 5
    classifier = OneShotClassifier(metric=metric, reduce=reduce).fit(support, labels)
    expected = brute_force(queries, support, labels, metric, reduce)
    np.testing.assert_allclose(classifier.class_scores(queries), expected.numpy(), rtol=1e-5, atol=1e-5)
    assert (classifier.predict(queries) == expected.argmax(1).numpy()).all()
    probabilities = classifier.predict_proba(queries)
    np.testing.assert_allclose(probabilities, expected.softmax(1).numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(probabilities.sum(1), 1)


@settings(max_examples=40, deadline=None)
@given(
    supports=st.integers(1, 12),
    queries=st.integers(0, 6),
    classes=st.integers(1, 5),
    columns=st.integers(1, 5),
    seed=st.integers(0, 1000),
    metric=st.sampled_from(("sqeuclidean", "dot", "manhattan")),
)
def test_ties_and_score_on_whole_numbers(
    supports: int, queries: int, classes: int, columns: int, seed: int, metric: str
) -> None:
    support, query = integers(supports, columns, seed), integers(queries, columns, seed + 1)
    names = np.array([f"class {i % classes}" for i in range(supports)])
    classifier = OneShotClassifier(metric=metric).fit(support, names)
    expected = brute_force(query, support, torch.arange(supports) % classes, metric, "max")
    best = expected == expected.amax(1, keepdim=True)
    labels, ties = classifier.predict(query, return_ties=True)
    assert (labels == classifier.classes_[expected.argmax(1).numpy()]).all()
    assert (ties == best.sum(1).numpy()).all()
    if queries:
        truth = torch.arange(queries) % best.shape[1]
        credit = best.gather(1, truth[:, None])[:, 0] / best.sum(1)
        assert classifier.score(query, classifier.classes_[truth.numpy()]) == pytest.approx(
            float(credit.mean())
        )


def test_a_constant_embedding_scores_one_in_c_and_not_all() -> None:
    classifier = OneShotClassifier(encoder=lambda images: torch.ones(len(images), 4)).fit(
        torch.rand(5, 9), range(5)
    )
    labels, ties = classifier.predict(torch.rand(7, 9), return_ties=True)
    assert (labels == 0).all() and (ties == 5).all()
    assert classifier.score(torch.rand(7, 9), np.zeros(7, dtype=int)) == pytest.approx(1 / 5)


@pytest.mark.parametrize("metric", METRICS)
def test_neighbours_are_ascending_and_lowest_index_first(metric: str) -> None:
    support = torch.cat([integers(6, 4), integers(6, 4)])
    queries = integers(5, 4, seed=3)
    classifier = OneShotClassifier(metric=metric).fit(support, np.arange(12))
    distances, positions = classifier.kneighbors(queries, 12)
    assert (np.diff(distances, axis=1) >= 0).all()
    equal = np.diff(distances, axis=1) == 0
    assert (np.diff(positions, axis=1)[equal] > 0).all()
    scores = (
        score_matrix(queries.double(), support.double(), metric)
        .gather(1, torch.from_numpy(positions))
        .numpy()
    )
    np.testing.assert_allclose(distances, 1 - scores if metric == "cosine" else -scores, atol=1e-6)
    assert (classifier.kneighbors(queries, 3, return_distance=False) == positions[:, :3]).all()


def test_neighbour_counts_out_of_range_are_refused() -> None:
    classifier = OneShotClassifier().fit(torch.rand(3, 2), [0, 1, 2])
    for count in (0, 4, 10**9):
        with pytest.raises(ValueError, match=r"n_neighbors must be in 1 \.\. 3"):
            classifier.kneighbors(torch.rand(1, 2), count)


@pytest.mark.parametrize("reduce", REDUCTIONS)
def test_a_head_without_fused_form_agrees_with_one_that_has(
    reduce: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Plain(nn.Module):
        """A linear Koch head that hides from the fused operations."""

        def __init__(self, koch: KochHead) -> None:
            super().__init__()
            self.koch = koch

        def matrix(self, q: Tensor, s: Tensor) -> Tensor:
            return self.koch.matrix(q, s)

    koch = KochHead(6)
    with torch.no_grad():
        koch.weight.copy_(torch.linspace(-2, 0.5, 6))
    support, queries, labels = torch.rand(17, 6), torch.rand(9, 6), np.arange(17) % 4
    fused = OneShotClassifier(head=koch, reduce=reduce).fit(support, labels)
    monkeypatch.setattr("siamese_fast.prediction.gallery.BLOCK", 200)
    blocks = OneShotClassifier(head=Plain(koch), reduce=reduce).fit(support, labels)
    np.testing.assert_allclose(
        fused.class_scores(queries), blocks.class_scores(queries), rtol=1e-5, atol=1e-6
    )
    for mine, theirs in zip(fused.kneighbors(queries, 8), blocks.kneighbors(queries, 8), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("head", [KochHead(8), KochHead(8, hidden=(5,)), DistanceHead("cosine")])
def test_a_network_brings_its_head_and_keeps_its_modes(head: nn.Module) -> None:
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Dropout(0.5))
    network = SiameseNetwork(encoder, head)
    network.train()
    encoder[2].eval()
    images, queries = torch.rand(6, 1, 3, 4), torch.rand(5, 1, 3, 4)
    classifier = OneShotClassifier(network, batch_size=2).fit(images, list("abcdef"))
    scores = classifier.class_scores(queries)
    assert [module.training for module in encoder] == [True, True, False, True]
    network.eval()
    with torch.no_grad():
        expected = head.matrix(network.embed(queries), network.embed(images))
    np.testing.assert_allclose(scores, expected.numpy(), rtol=1e-4, atol=1e-5)
    assert not hasattr(classifier, "n_features_in_")


def test_a_callable_encoder_takes_lists() -> None:
    def lengths(words: list[str]) -> np.ndarray:
        return np.array([[len(word), word.count("a")] for word in words], dtype=np.float32)

    classifier = OneShotClassifier(lengths, batch_size=2).fit(["a", "banana", "sea"], ["one", "two", "three"])
    assert classifier.predict(["b", "cabana"]).tolist() == ["one", "two"]


@pytest.mark.parametrize(
    ("labels", "unknown", "expected"),
    [
        (["ann", "bob"], "nobody", ["ann", "nobody"]),
        ([1, 2], -1, [1, -1]),
        ([1, 2], "nobody", [1, "nobody"]),
        (["ann", "bob"], None, ["ann", None]),
        ([False, True], None, [False, None]),
    ],
)
def test_open_set(labels: list[object], unknown: object, expected: list[object]) -> None:
    support, queries = torch.tensor([[0.0, 0.0], [1.0, 1.0]]), torch.tensor([[0.1, 0.0], [9.0, 9.0]])
    classifier = OneShotClassifier(threshold=-1.0, unknown_label=unknown).fit(support, labels)
    assert classifier.predict(queries).tolist() == expected
    truth = np.array(expected, dtype=object)
    assert classifier.score(queries, truth) == 1
    assert classifier.score(queries, [labels[0], labels[1]]) == 0.5
    assert classifier.set_params(threshold=None).predict(queries).tolist() == labels


def test_an_unknown_label_that_is_a_class_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown_label 2 is also the label of a class"):
        OneShotClassifier(threshold=0.0, unknown_label=2).fit(torch.rand(2, 2), [1, 2])


def test_growing_and_shrinking_equals_fitting_at_once() -> None:
    support, queries = torch.rand(9, 4), torch.rand(6, 4)
    labels = np.array(["b", "b", "a", "long name", "c", "a", "d", "d", "b"])
    grown = OneShotClassifier().add_support(support[:3], labels[:3]).add_support(support[3:8], labels[3:8])
    grown.add_support(support[8:], labels[8:])
    whole = OneShotClassifier().fit(support, labels)
    assert grown.classes_.tolist() == whole.classes_.tolist() == ["a", "b", "c", "d", "long name"]
    assert (grown.class_scores(queries) == whole.class_scores(queries)).all()
    assert grown.support_labels_.tolist() == labels.tolist()

    grown.remove(label=["long name", "a"]).remove(index=[0, -1])
    kept = [1, 4, 6, 7]
    whole.fit(support[kept], labels[kept])
    assert grown.classes_.tolist() == whole.classes_.tolist() == ["b", "c", "d"]
    assert (grown.class_scores(queries) == whole.class_scores(queries)).all()

    grown.remove(label=["b", "c", "d"])
    with pytest.raises(ValueError, match="not fitted"):
        grown.predict(queries)
    assert grown.add_support(support[:1], ["again"]).predict(queries).tolist() == ["again"] * 6


def test_integer_labels_are_not_rounded() -> None:
    """int64 and uint64 go together in float64, which has 53 bits."""
    x, large = torch.eye(4), 2**60
    classifier = OneShotClassifier().fit(x[:2], np.array([large, -1]))
    with pytest.raises(ValueError, match="without rounding: int64, uint64 make float64"):
        classifier.add_support(x[2:3], np.array([large + 1], dtype=np.uint64))
    assert classifier.classes_.tolist() == [-1, large]
    classifier.add_support(x[2:3], np.array([large + 1]))
    assert classifier.classes_.tolist() == [-1, large, large + 1]
    unsigned = np.array([large + 1, large + 2], dtype=np.uint64)
    assert classifier.score(x[2:4], unsigned) == 0.5  # the second is no class, and not the first
    assert classifier.remove(label=np.uint64(large)).classes_.tolist() == [-1, large + 1]
    small = (
        OneShotClassifier().fit(x[:2], np.array([7, -1])).add_support(x[2:3], np.array([5], dtype=np.uint64))
    )
    assert small.classes_.tolist() == [-1, 5, 7]


def test_misuse_of_remove_and_add_support() -> None:
    classifier = OneShotClassifier().fit(torch.rand(2, 2), ["a", "b"])
    with pytest.raises(KeyError, match="'z' is not among the 2 known classes"):
        classifier.remove(label="z")
    with pytest.raises(IndexError):
        classifier.remove(index=2)
    with pytest.raises(TypeError, match="exactly one"):
        classifier.remove()
    with pytest.raises(ValueError, match="number labels to text labels"):
        classifier.add_support(torch.rand(1, 2), [3])
    with pytest.raises(ValueError, match="3 features, but OneShotClassifier is expecting 2"):
        classifier.add_support(torch.rand(1, 3), ["c"])
    assert classifier.classes_.tolist() == ["a", "b"]


def test_the_support_set_is_a_copy() -> None:
    for metric in METRICS:
        support = torch.rand(3, 2)
        classifier = OneShotClassifier(metric=metric).fit(support, [0, 1, 2])
        before = classifier.class_scores(torch.ones(1, 2))
        support.zero_()
        assert (classifier.class_scores(torch.ones(1, 2)) == before).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes(dtype: torch.dtype) -> None:
    support = integers(6, 4).to(dtype)
    classifier = OneShotClassifier(reduce="prototype").fit(support, [0, 0, 1, 1, 2, 2])
    assert classifier.support_.dtype == dtype
    expected = OneShotClassifier(reduce="prototype").fit(support.double(), [0, 0, 1, 1, 2, 2])
    queries = np.asarray(integers(5, 4, seed=2), dtype=np.float64)
    np.testing.assert_allclose(classifier.class_scores(queries), expected.class_scores(queries), rtol=1e-3)


def test_queries_are_taken_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    support, queries = torch.rand(7, 3), torch.rand(50, 3)
    classifier = OneShotClassifier(batch_size=4).fit(support, np.arange(7))
    whole = (
        classifier.class_scores(queries),
        classifier.kneighbors(queries, 2)[1],
        classifier.predict(queries),
    )
    monkeypatch.setattr("siamese_fast.prediction.classifier.QUERY_ROWS", 8)
    monkeypatch.setattr("siamese_fast.prediction.gallery.SCORES", 21)
    parts = (
        classifier.class_scores(queries),
        classifier.kneighbors(queries, 2)[1],
        classifier.predict(queries),
    )
    for one, other in zip(whole, parts, strict=True):
        assert (one == other).all()


def test_many_classes_are_decided_by_the_two_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    support, queries = integers(40, 2), integers(60, 2, seed=9)
    classifier = OneShotClassifier(metric="sqeuclidean").fit(support, np.arange(40) % 30)
    truth = np.arange(60) % 30
    few = (*classifier.predict(queries, return_ties=True), classifier.score(queries, truth))
    monkeypatch.setattr("siamese_fast.prediction.classifier._MANY_CLASSES", 2)
    monkeypatch.setattr("siamese_fast.prediction.classifier.QUERY_ROWS", 7)
    many = (*classifier.predict(queries, return_ties=True), classifier.score(queries, truth))
    for one, other in zip(few, many, strict=True):
        assert np.array_equal(one, other)
    assert (few[1] > 1).any() and (few[1] == 1).any()


def test_no_query_and_one_class() -> None:
    classifier = OneShotClassifier(threshold=-1e9, unknown_label="?").fit(torch.rand(3, 2), ["only"] * 3)
    nothing = torch.empty(0, 2)
    assert classifier.predict(nothing).shape == (0,)
    assert classifier.predict_proba(nothing).shape == (0, 1)
    assert classifier.class_scores(nothing).shape == (0, 1)
    assert [part.shape for part in classifier.kneighbors(nothing, 2)] == [(0, 2), (0, 2)]
    assert classifier.predict(torch.rand(1, 2)).tolist() == ["only"]
    with pytest.raises(ValueError, match="at least one query"):
        classifier.score(nothing, [])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_embeddings_that_are_not_finite_are_refused_by_row(bad: float) -> None:
    spoiled = torch.rand(4, 2)
    spoiled[2, 1] = bad
    with pytest.raises(ValueError, match=r"X contains NaN or infinity \(first in row 2\)"):
        OneShotClassifier().fit(spoiled, range(4))
    classifier = OneShotClassifier(nn.Identity()).fit(torch.rand(4, 2), range(4))
    with pytest.raises(
        ValueError, match=r"the encoder's embedding of X contains NaN or infinity \(first in row 2\)"
    ):
        classifier.predict(spoiled)


@pytest.mark.parametrize(
    ("support", "labels", "message"),
    [
        (np.empty((0, 3)), [], "0 sample"),
        (np.empty((2, 0)), [0, 1], "0 feature"),
        (np.ones(3), [0, 1, 2], "Reshape your data"),
        (np.ones((2, 3)), [0], "1 labels for 2 examples"),
        (np.ones((2, 3)), None, "y is None"),
        (np.ones((2, 3)), [0.5, 1.0], "Unknown label type: continuous"),
        (np.ones((2, 3)), [[0, 1], [1, 0]], "1d array"),
        (np.ones((2, 3)), np.array(["a", 1], dtype=object), "labels of one kind"),
        (np.ones((2, 3), dtype=complex), [0, 1], "Complex data"),
        (np.array([["x"], ["y"]]), [0, 1], "numeric"),
    ],
)
def test_bad_support_sets(support: np.ndarray, labels: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OneShotClassifier().fit(support, labels)


def test_bad_parameters_are_named() -> None:
    support, labels = torch.rand(2, 2), [0, 1]
    with pytest.raises(ValueError, match="metric must be one of euclidean"):
        OneShotClassifier(metric="hamming").fit(support, labels)
    with pytest.raises(ValueError, match="reduce must be one of max"):
        OneShotClassifier(reduce="median").fit(support, labels).predict(support)
    with pytest.raises(ValueError, match="temperature must be positive"):
        OneShotClassifier(temperature=0).fit(support, labels).predict_proba(support)
    with pytest.raises(TypeError, match="head must have matrix"):
        OneShotClassifier(head=nn.Linear(2, 1)).fit(support, labels)
    with pytest.raises(ValueError, match="no parameter 'colour'"):
        OneShotClassifier().set_params(colour=1)
    with pytest.raises(ValueError, match="not fitted"):
        OneShotClassifier().predict(support)


@pytest.mark.parametrize(
    "labels",
    [["ann", "bob", "ann"], [3, 1, 3], [True, False, True], np.array(["x", "yy", "x"], dtype=object)],
)
def test_saving_and_loading_gives_the_same_bits(tmp_path: Path, labels: object) -> None:
    settings_ = {
        "metric": "cosine",
        "reduce": "mean",
        "temperature": 0.25,
        "threshold": -3.0,
        "unknown_label": "?",
    }
    classifier = OneShotClassifier(**settings_).fit(torch.rand(3, 5), labels)
    classifier.save(tmp_path / "faces")
    loaded = OneShotClassifier.load(tmp_path / "faces")
    assert loaded.get_params() == classifier.get_params()
    assert loaded.classes_.dtype == classifier.classes_.dtype
    queries = torch.rand(8, 5)
    assert (loaded.predict(queries) == classifier.predict(queries)).all()
    for method in ("predict_proba", "class_scores"):
        assert getattr(loaded, method)(queries).tobytes() == getattr(classifier, method)(queries).tobytes()
    loaded.save(tmp_path / "again")
    files = [
        sorted((p.name, p.read_bytes()) for p in (tmp_path / name).iterdir()) for name in ("faces", "again")
    ]
    assert files[0] == files[1] and len(files[0]) == 2


def network(seed: int) -> SiameseNetwork:
    torch.manual_seed(seed)
    return SiameseNetwork(MLPEncoder(12, hidden=(), embedding_dim=8), KochHead(8))


def test_saving_with_and_without_weights(tmp_path: Path) -> None:
    images, queries = torch.rand(4, 12), torch.rand(5, 12)
    classifier = OneShotClassifier(network(0)).fit(images, range(4))
    expected = classifier.class_scores(queries)
    classifier.save(tmp_path)
    with pytest.warns(UserWarning, match="other weights"):
        OneShotClassifier.load(tmp_path, encoder=network(1))
    assert (OneShotClassifier.load(tmp_path, encoder=network(0)).class_scores(queries) == expected).all()
    classifier.save(tmp_path, weights=True)
    assert (OneShotClassifier.load(tmp_path, encoder=network(1)).class_scores(queries) == expected).all()
    with pytest.raises(ValueError, match="needs encoder= \\(SiameseNetwork\\)"):
        OneShotClassifier.load(tmp_path)
    with pytest.raises(ValueError, match="takes no head="):
        OneShotClassifier.load(tmp_path, encoder=network(0), head=KochHead(8))


def test_saving_again_replaces_and_an_interrupted_save_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    OneShotClassifier().fit(torch.zeros(1, 2), ["old"]).save(tmp_path)
    replace = Path.replace

    def fail_at_the_index(self: Path, target: Path) -> Path:
        if target.name == "classifier.json":
            raise OSError("disk full")
        return replace(self, target)

    newer = OneShotClassifier().fit(torch.ones(1, 2), ["new"])
    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", fail_at_the_index)
        with pytest.raises(OSError, match="disk full"):
            newer.save(tmp_path)
    assert OneShotClassifier.load(tmp_path).classes_.tolist() == ["old"]
    newer.save(tmp_path)
    assert OneShotClassifier.load(tmp_path).classes_.tolist() == ["new"]
    assert len(list(tmp_path.iterdir())) == 2


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    OneShotClassifier().fit(torch.zeros(1, 2), ["a"]).save(tmp_path)
    tensors = next(tmp_path.glob("*.safetensors"))
    tensors.write_bytes(tensors.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ValueError, match="damaged"):
        OneShotClassifier.load(tmp_path)
    index = json.loads((tmp_path / "classifier.json").read_text())
    (tmp_path / "classifier.json").write_text(json.dumps({**index, "format": 99}))
    with pytest.raises(ValueError, match="format 99; this version reads format 1"):
        OneShotClassifier.load(tmp_path)


def test_pickle_and_repr() -> None:
    classifier = OneShotClassifier(nn.Flatten(), metric="cosine").fit(torch.rand(3, 2), [0, 1, 2])
    assert repr(classifier) == "OneShotClassifier(encoder=Flatten(...), metric='cosine')"
    restored = pickle.loads(pickle.dumps(classifier))
    queries = torch.rand(4, 2)
    assert (restored.class_scores(queries) == classifier.class_scores(queries)).all()


@pytest.mark.parametrize(
    "parameters", [{}, {"reduce": "prototype"}, {"metric": "manhattan", "reduce": "mean"}]
)
@pytest.mark.filterwarnings("ignore:Estimator OneShotClassifier does not inherit")
def test_scikit_learn_accepts_it(parameters: dict[str, str]) -> None:
    checks = pytest.importorskip("sklearn.utils.estimator_checks")
    results = checks.check_estimator(OneShotClassifier(**parameters), on_skip=None, on_fail="raise")
    assert len(results) > 40


def test_scikit_learn_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.exceptions", None)
    with pytest.raises(AttributeError, match=r"call fit\(support, labels\) first"):
        OneShotClassifier().predict(torch.rand(1, 2))
    with pytest.warns(UserWarning, match="column-vector y"):
        OneShotClassifier().fit(torch.rand(2, 2), [[0], [1]])


def test_scikit_learn_tools() -> None:
    base = pytest.importorskip("sklearn.base")
    selection = pytest.importorskip("sklearn.model_selection")
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    cloned = base.clone(OneShotClassifier(encoder, threshold=-2.0))
    assert cloned.threshold == -2.0 and cloned.encoder is not encoder
    points = np.concatenate([np.random.RandomState(0).randn(20, 2) + shift for shift in (0, 8)])
    labels = np.repeat(["left", "right"], 20)
    search = selection.GridSearchCV(OneShotClassifier(), {"reduce": list(REDUCTIONS)}, cv=4).fit(
        points, labels
    )
    assert search.best_score_ == 1.0
