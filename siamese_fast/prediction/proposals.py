"""Approximate look-up: a faiss index proposes supports, their scores are computed exactly.

    nearest(q) = the k best of score(q, s) over s in faiss(q)

So an answer may miss a support, but never has a wrong score. For support sets too large to compare with every
query (docs/scaling.md says from where on): exact look-up needs no training and no recall figure.

Source: Douze et al., "The Faiss library" (2024).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from siamese_fast._extras import require

_FEWEST = 32


class Proposals:
    """A faiss index over supports `[S, D]`.

    Args:
        rows: the supports.
        metric: of the scores; None, that of a head with parameters, has no index.
        description: what `faiss.index_factory` takes, and after a semicolon, search parameters:
            "IVF1024,Flat;nprobe=32", "HNSW32;efSearch=64".

    Raises:
        ValueError: faiss refuses the description, or has too few supports to train it.
        ImportError: faiss is not installed.
    """

    def __init__(self, rows: Tensor, metric: str | None, description: str) -> None:
        faiss: Any = require("faiss", extra="faiss")
        kinds = {"euclidean": "L2", "sqeuclidean": "L2", "cosine": "INNER_PRODUCT", "dot": "INNER_PRODUCT"}
        kind = {**kinds, "manhattan": "L1"}.get(metric or "")
        if kind is None:
            raise ValueError("approximate needs a metric: a head with parameters has no index")
        self._unit = metric == "cosine"
        self._count = len(rows)
        factory, _, parameters = description.partition(";")
        if self._count == 0:
            return
        try:
            self._index = faiss.index_factory(rows.shape[1], factory, getattr(faiss, f"METRIC_{kind}"))
            vectors = self._vectors(rows)
            self._index.train(vectors)
            self._index.add(vectors)
            if parameters:
                faiss.ParameterSpace().set_index_parameters(self._index, parameters)
        except RuntimeError as error:
            raise ValueError(f"approximate={description!r} is not possible here: {error}") from error

    def of(self, queries: Tensor, k: int) -> Tensor:
        """Candidates int64 `[Q, m]`, ascending, more than k where there are so many; -1 for none."""
        count = min(self._count, max(_FEWEST, 4 * k))
        if count == 0 or len(queries) == 0:
            return torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
        found = self._index.search(self._vectors(queries), count)[1]
        return torch.from_numpy(found).to(queries.device).sort(dim=1).values

    def _vectors(self, rows: Tensor) -> Any:
        rows = rows.detach().float()
        return (torch.nn.functional.normalize(rows) if self._unit else rows).cpu().contiguous().numpy()
