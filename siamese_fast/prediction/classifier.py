"""OneShotClassifier: names new examples from one or a few examples of each class.

    label(q) = argmax over classes c of  max or mean over the examples s of c of score(q, s),
                                     or  score(q, mean of the examples of c)

`score` is minus a distance, a similarity, or the logit of a trained head. No [Q, S] matrix is kept: memory is
O(S D) for the support set and O(block) for the queries, however many there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self, cast, overload

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from siamese_fast.prediction import storage
from siamese_fast.prediction._estimator import Estimator, not_fitted
from siamese_fast.prediction.decisions import Array, Decisions, decide, decide_by_nearest, with_unknown
from siamese_fast.prediction.gallery import REDUCTIONS, Comparison, Gallery, Reduce
from siamese_fast.prediction.inputs import (
    Encoder,
    Rows,
    among,
    as_labels,
    as_rows,
    check_embeddings,
    embed,
    embedder,
    head_of,
    label_kind,
    merged_classes,
)

QUERY_ROWS = 4096
_MANY_CLASSES = 4096


class OneShotClassifier(Estimator):
    """Few-shot classifier over a support set, in scikit-learn's manner; scikit-learn itself is optional.

    Args:
        encoder: turns a batch of raw examples into embeddings `[n, D]`: a `SiameseNetwork` (its head is used
            too), any module, any callable. None: examples are embeddings already.
        head: scores embeddings (`siamese_fast.network.KochHead`, `DistanceHead`, or any module with
            `matrix(q, s) -> logits [Q, S]`); None: the network's head, or `metric` where there is none.
        metric: "euclidean", "sqeuclidean", "cosine", "dot" or "manhattan"; used without a head.
        reduce: the score of a class with several examples: that of the nearest one ("max"), the "mean" of
            all, or that of their mean embedding ("prototype", Snell et al. 2017).
        threshold: open set: a query whose best score is below it belongs to no known class. On the scale of
            `class_scores`: minus the distance, the similarity, or the logit. None: every query gets a known
            class.
        unknown_label: what `predict` answers for such a query.
        temperature: `predict_proba` is the softmax of scores / temperature.
        batch_size: raw examples encoded at a time.
        approximate: a faiss index (extra `faiss`) that proposes supports to `kneighbors`, and under
            reduce="max" to `predict` and `score`, as in "IVF1024,Flat;nprobe=32": a factory string and search
            parameters. Scores stay exact, a nearest support may be missed (`kneighbors` has position -1
            where too few are found). For metrics, not for heads with parameters. None: exact.

    Attributes:
        classes_: the labels known, sorted `[C]`, in their own dtype.
        support_: their embeddings `[S, D]`, in the order added; `support_labels_` `[S]` are their labels.
        n_features_in_: D, when examples are embeddings.

    Examples are NumPy arrays, tensors or lists; answers are NumPy arrays. Embeddings are computed when an
    example is added: after training the encoder further, fit again. A NaN or infinite embedding raises
    ValueError. Among classes with bit-equal scores the first in `classes_` is answered; `return_ties` and
    `score` do not hide it.

    Example:
        >>> classifier = OneShotClassifier(network).fit(one_image_of_each, ["cat", "dog", "owl"])
        >>> classifier.predict(images)
    """

    def __init__(
        self,
        encoder: Encoder | None = None,
        head: nn.Module | None = None,
        *,
        metric: str = "euclidean",
        reduce: str = "max",
        threshold: float | None = None,
        unknown_label: Any = None,
        temperature: float = 1.0,
        batch_size: int = 256,
        approximate: str | None = None,
    ) -> None:
        self.encoder = encoder
        self.head = head
        self.metric = metric
        self.reduce = reduce
        self.threshold = threshold
        self.unknown_label = unknown_label
        self.temperature = temperature
        self.batch_size = batch_size
        self.approximate = approximate

    def fit(self, X: Any, y: Any) -> Self:
        """Remember the support set: examples `X`, one a row, and their labels `y` `[S]`.

        They replace any earlier ones. Raises ValueError for an empty set, a label count that differs, or
        embeddings that are not finite vectors.
        """
        comparison = Comparison(self.metric, head_of(self.encoder, self.head))
        embeddings = comparison.cast(self._embed_support(X, like=None))
        classes, index = np.unique(as_labels(y, len(embeddings)), return_inverse=True)
        self._remember(embeddings, index, classes, comparison)
        return self

    def add_support(self, X: Any, y: Any) -> Self:
        """Add examples, of known classes or new ones. On an empty or unfitted classifier this is `fit`.

        Costs one copy of the support set: add many examples in one call. Raises ValueError as `fit` does, and
        for labels of another kind (text, number, bool) than the known ones.
        """
        if not self.__sklearn_is_fitted__():
            return self.fit(X, y)
        added = self._embed_support(X, like=self.support_)
        labels = as_labels(y, len(added))
        if label_kind(labels) != label_kind(self.classes_):
            kinds = f"{label_kind(labels)} labels to {label_kind(self.classes_)} labels"
            raise ValueError(f"y adds {kinds}: all labels of a classifier must be of one kind")
        classes = merged_classes([self.classes_, labels])
        known = np.searchsorted(classes, self.classes_)[self._gallery.class_index.cpu().numpy()]
        index = np.concatenate([known, np.searchsorted(classes, labels)])
        self._remember(torch.cat([self.support_, added]), index, classes, self._gallery.comparison)
        return self

    def remove(self, *, label: Any = None, index: int | ArrayLike | None = None) -> Self:
        """Forget all examples of a label (or of several), or the examples at these positions of `support_`.

        A class with no example left is forgotten; later examples move up. Raises KeyError for an unknown
        label, IndexError for a position out of range, and TypeError unless exactly one argument is given.
        """
        self._check_fitted()
        if (label is None) == (index is None):
            raise TypeError("remove takes exactly one of label= and index=")
        keep = np.ones(len(self.support_), dtype=bool)
        if index is not None:
            keep[np.asarray(index, dtype=np.int64)] = False
        else:
            gone = np.atleast_1d(np.asarray(label))
            if missing := [x for x in gone.tolist() if x not in self.classes_.tolist()]:
                raise KeyError(f"label {missing[0]!r} is not among the {len(self.classes_)} known classes")
            keep = ~np.isin(self.support_labels_, gone.astype(self.classes_.dtype))
        classes, class_index = np.unique(self.support_labels_[keep], return_inverse=True)
        kept = self.support_[torch.from_numpy(keep).to(self.support_.device)]
        self._remember(kept, class_index, classes, self._gallery.comparison)
        return self

    @overload
    def predict(self, X: Any, return_ties: Literal[False] = False) -> Array: ...
    @overload
    def predict(self, X: Any, return_ties: Literal[True]) -> tuple[Array, Array]: ...
    def predict(self, X: Any, return_ties: bool = False) -> Array | tuple[Array, Array]:
        """The label of each query `[Q]`.

        With `return_ties`, also how many classes share the best score, int64 `[Q]`: 1 is a clean decision,
        the number of classes means that the scores say nothing at all.
        """
        rows = self._rows(X)
        decisions = self._decide(rows, np.zeros(len(rows), dtype=np.int64))
        labels = self.classes_[decisions.winner]
        if self.threshold is not None:
            labels = with_unknown(labels, self._rejected(decisions.best), self.unknown_label)
        return (labels, decisions.ties) if return_ties else labels

    def predict_proba(self, X: Any) -> Array:
        """Softmax of scores / temperature, float64 `[Q, C]`, columns as in `classes_`."""
        rows = self._rows(X)
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")
        blocks = self._score_blocks(rows)
        return np.concatenate([s.double().div(self.temperature).softmax(1).cpu().numpy() for s in blocks])

    def class_scores(self, X: Any) -> Array:
        """The score of every class `[Q, C]`, larger is better: what `predict` compares."""
        return np.concatenate([scores.cpu().numpy() for scores in self._score_blocks(self._rows(X))])

    def kneighbors(self, X: Any, n_neighbors: int = 1, return_distance: bool = True) -> Any:
        """The nearest support examples, ascending: (distances, positions in `support_`), `[Q, n_neighbors]`.

        The distance is the metric's own; minus the score for "dot" and for heads. Raises ValueError unless
        1 <= n_neighbors <= S. `return_distance=False` returns the positions alone.
        """
        rows = self._rows(X)
        if not 1 <= n_neighbors <= len(self._gallery):
            raise ValueError(
                f"n_neighbors must be in 1 .. {len(self._gallery)} (the examples held), got {n_neighbors}"
            )
        found = [self._gallery.nearest(q, n_neighbors) for q in self._query_blocks(rows)]
        distances = [self._gallery.comparison.distance(scores).cpu().numpy() for scores, _ in found]
        positions = np.concatenate([index.cpu().numpy() for _, index in found])
        return (np.concatenate(distances), positions) if return_distance else positions

    def score(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> float:
        """Mean accuracy; where m classes share the best score and the right one is among them, 1/m counts.

        A network that answers the same for every image thereby scores 1/C, where counting the first of equals
        as the answer would score 100 % whenever the right class is listed first. With a `threshold`, a query
        whose label is not in `classes_` is right exactly when it is rejected.
        """
        rows = self._rows(X)
        if len(rows) == 0:
            raise ValueError("score needs at least one query, got none")
        truth = as_labels(y, len(rows), mixed=True)
        if label_kind(truth) not in ("mixed", label_kind(self.classes_)):
            raise ValueError(
                f"y holds {label_kind(truth)} labels, classes_ holds {label_kind(self.classes_)} labels"
            )
        column = among(truth, self.classes_)
        known = column >= 0
        decisions = self._decide(rows, column.clip(0))
        rejected = self._rejected(decisions.best)
        right = np.where(known, (decisions.asked & ~rejected) / decisions.ties, rejected)
        return float(np.average(right, weights=None if sample_weight is None else np.asarray(sample_weight)))

    def save(self, path: str | Path, *, weights: bool = False) -> None:
        """Write the support set and the parameters to a folder (safetensors and JSON; no pickle), atomically.

        With `weights`, the encoder's and the head's weights too; otherwise only a fingerprint of them.
        """
        self._check_fitted()
        storage.save(self, Path(path), weights=weights)

    @classmethod
    def load(cls, path: str | Path, *, encoder: Encoder | None = None, head: nn.Module | None = None) -> Self:
        """Read what `save` wrote; the encoder and head it was fitted with are given again.

        Saved weights are loaded into them; without saved weights, other weights than at `save` are warned of.
        Raises ValueError for a missing or superfluous encoder or head, a damaged file, or a newer format.
        """
        return cast(Self, storage.load(cls, Path(path), encoder, head))

    def __sklearn_is_fitted__(self) -> bool:
        return len(getattr(self, "_gallery", ())) > 0

    def _check_fitted(self) -> None:
        if not self.__sklearn_is_fitted__():
            raise not_fitted(self)

    @property
    def support_(self) -> Tensor:
        return self._gallery.embeddings

    @property
    def support_labels_(self) -> Array:
        return cast(Array, self.classes_[self._gallery.class_index.cpu().numpy()])

    def _rejected(self, best: Array) -> Array:
        return np.zeros(len(best), dtype=bool) if self.threshold is None else best < self.threshold

    def _embed_support(self, X: Any, like: Tensor | None) -> Tensor:
        rows = self._checked(X, None if like is None else like.shape[1])
        if len(rows) == 0:
            raise ValueError("Found array with 0 sample(s) while a minimum of 1 is required.")
        return embed(rows, embedder(self.encoder), batch_size=self.batch_size, like=like)

    def _remember(
        self, embeddings: Tensor, class_index: Array, classes: Array, comparison: Comparison
    ) -> None:
        index = torch.from_numpy(class_index).to(embeddings.device)
        self._keep(Gallery(embeddings, index, len(classes), comparison, self.approximate), classes)

    def _keep(self, gallery: Gallery, classes: Array) -> None:
        self._check_unknown_label(classes)
        self._gallery = gallery
        self.classes_ = classes
        if self.encoder is None:
            self.n_features_in_ = gallery.embeddings.shape[1]

    def _check_unknown_label(self, classes: Array) -> None:
        if self.unknown_label is not None and self.unknown_label in classes.tolist():
            raise ValueError(f"unknown_label {self.unknown_label!r} is also the label of a class")

    def _rows(self, X: Any) -> Rows:
        self._check_fitted()
        return self._checked(X, self.support_.shape[1])

    def _checked(self, X: Any, features: int | None) -> Rows:
        rows = as_rows(X, raw=self.encoder is not None)
        if self.encoder is None:
            check_embeddings(rows, features, type(self).__name__)
        return rows

    def _query_blocks(self, rows: Rows) -> Iterator[Tensor]:
        """Embeddings of the queries, a bounded number at a time; one empty block when there are none."""
        step = max(QUERY_ROWS, self.batch_size)
        for start in range(0, max(1, len(rows)), step):
            part = rows[start : start + step]
            encoder = embedder(self.encoder)
            yield embed(part, encoder, batch_size=self.batch_size, like=self.support_, first=start)

    def _score_blocks(self, rows: Rows) -> Iterator[Tensor]:
        """Class scores `[q, C]` of successive queries."""
        if self.reduce not in REDUCTIONS:
            raise ValueError(f"reduce must be one of {', '.join(REDUCTIONS)}, got {self.reduce!r}")
        for queries in self._query_blocks(rows):
            yield from self._gallery.score_blocks(queries, cast(Reduce, self.reduce))

    def _decide(self, rows: Rows, column: Array) -> Decisions:
        many = self.approximate is not None or len(self.classes_) >= _MANY_CLASSES
        if self.reduce == "max" and many:
            return decide_by_nearest(self._query_blocks(rows), self._gallery, column)
        return decide(self._score_blocks(rows), column)
