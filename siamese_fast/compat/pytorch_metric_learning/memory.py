"""The library's cross-batch memory, and nearest neighbours for its evaluation."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from siamese_fast import ops
from siamese_fast._extras import require
from siamese_fast.compat.pytorch_metric_learning.losses import EveryPair, Fused

losses = require("pytorch_metric_learning.losses", "metrics")
inference = require("pytorch_metric_learning.utils.inference", "metrics")


class CrossBatchMemory(losses.CrossBatchMemory):  # type: ignore[misc,name-defined]
    """`pytorch_metric_learning.losses.CrossBatchMemory`: with a loss of this module and no miner, the
    memory is one more reference set of a fused loss; and its position survives `state_dict` (checkpoints of
    the library
    load too).

    Example:
        >>> loss = CrossBatchMemory(NTXentLoss(), embedding_size=128, memory_size=65_536)(embeddings, labels)
    """

    def create_indices_tuple(
        self,
        embeddings: Tensor,
        labels: Tensor,
        memory: Tensor,
        memory_labels: Tensor,
        given: Any,
        do_remove_self_comparisons: bool,
    ) -> Any:
        create = partial(
            super().create_indices_tuple,
            embeddings,
            labels,
            memory,
            memory_labels,
            given,
            do_remove_self_comparisons,
        )
        if not isinstance(self.loss, Fused) or self.miner or given is not None:
            return create()
        return EveryPair(self.curr_batch_idx if do_remove_self_comparisons else None, create)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}queue_state"] = torch.tensor([self.queue_idx, int(self.has_been_filled)])

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        state = state_dict.pop(f"{prefix}queue_state", None)
        if state is not None:
            self.queue_idx, self.has_been_filled = int(state[0]), bool(state[1])
        super()._load_from_state_dict(state_dict, prefix, *args)


class NearestSupportKNN:
    """A `knn_func` for the library's `AccuracyCalculator` and `InferenceModel`, without faiss.

    Args:
        metric: "euclidean", "sqeuclidean", "manhattan", "cosine" or "dot".

    Example:
        >>> calculator = AccuracyCalculator(knn_func=NearestSupportKNN("cosine"))
        >>> model = InferenceModel(trunk, knn_func=NearestSupportKNN())
    """

    def __init__(self, metric: str = "euclidean") -> None:
        self.metric = metric
        self._table: Tensor | None = None

    def __call__(
        self, query: Tensor, k: int, reference: Tensor | None = None, ref_includes_query: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Distances (similarities for "cosine" and "dot") and indices [Q, k], nearest first, in `reference`,
        or in what was trained on, or among the queries.
        """
        trained = query if self._table is None else self._table.to(query.device, query.dtype)
        table = trained if reference is None else reference
        scores, index = ops.nearest_support(query, table, k + int(ref_includes_query), metric=self.metric)
        values = scores if self.metric in ("cosine", "dot") else -scores
        found: tuple[Tensor, Tensor] = inference.return_results(values, index, ref_includes_query)
        return found

    def train(self, embeddings: Tensor) -> None:
        """Keep rows [S, D] for calls without a reference."""
        self._table = torch.as_tensor(embeddings).detach()

    def add(self, embeddings: Tensor) -> None:
        """Keep more rows."""
        added = torch.as_tensor(embeddings).detach()
        self._table = added if self._table is None else torch.cat([self._table, added.to(self._table)])

    def reset(self) -> None:
        """Keep none."""
        self._table = None

    def save(self, filename: str) -> None:
        """Write the rows to a file of `torch.save`."""
        torch.save(self._table, filename)

    def load(self, filename: str) -> None:
        """Read what `save` wrote."""
        self._table = torch.load(filename, weights_only=True)
