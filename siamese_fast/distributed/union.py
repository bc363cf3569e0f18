"""What the ranks bring to a support set, made one: the classes of all, and each rank's examples in them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from siamese_fast.distributed.shards import Shard
from siamese_fast.distributed.world import World
from siamese_fast.prediction.decisions import Array
from siamese_fast.prediction.inputs import label_kind, merged_classes


class Offer(NamedTuple):
    """Examples of one rank: embeddings `[n, D]` and labels `[n]`."""

    embeddings: Tensor
    labels: Array


def united(
    world: World, offer: Offer | None, like: Tensor | None, known: Array | None, count: int
) -> tuple[Shard, Array]:
    """This rank's examples as a shard, and all classes.

    `like` and `known` are the embeddings and classes of the `count` examples that are there already. The new
    examples follow them, those of rank 0 first. Raises ValueError on every rank where the ranks' examples do
    not go together, or none has any.
    """
    notes = world.gather_json(world.attempt(lambda: None if offer is None else _note(offer)))
    present = [note for note in notes if note is not None]
    if not present:
        raise ValueError("fit and add_support need an example on at least one rank, got none")
    _check_alike(notes, known)
    parts = [np.array(note["classes"], dtype=note["label dtype"]) for note in present]
    classes = merged_classes(parts if known is None else [known, *parts])
    first = count + sum(note["rows"] for note in notes[: world.rank] if note is not None)
    if offer is None:
        embeddings, index = _nothing(present[0], like, world), np.empty(0, dtype=np.int64)
    else:
        embeddings, index = offer.embeddings, np.searchsorted(classes, offer.labels)
    position = torch.arange(first, first + len(embeddings), device=embeddings.device)
    return Shard(embeddings, torch.from_numpy(index).to(embeddings.device), position), classes


def _note(offer: Offer) -> dict[str, Any]:
    return {
        "rows": len(offer.embeddings),
        "columns": offer.embeddings.shape[1],
        "dtype": str(offer.embeddings.dtype).removeprefix("torch."),
        "label kind": label_kind(offer.labels),
        "label dtype": offer.labels.dtype.str,
        "classes": plain(np.unique(offer.labels)),
    }


def plain(labels: Array) -> list[Any]:
    """As JSON takes them: an object array may hold NumPy's scalars."""
    return [label.item() if isinstance(label, np.generic) else label for label in labels.tolist()]


def _check_alike(notes: list[dict[str, Any] | None], known: Array | None) -> None:
    first = next(note for note in notes if note is not None)
    for rank, note in enumerate(notes):
        for name in ("columns", "dtype", "label kind"):
            if note is not None and note[name] != first[name]:
                raise ValueError(
                    f"the {name} of the examples must be the same on every rank: rank {rank} has "
                    f"{note[name]!r}, an earlier rank has {first[name]!r}"
                )
    if known is not None and label_kind(known) != first["label kind"]:
        kinds = f"{first['label kind']} labels to {label_kind(known)} labels"
        raise ValueError(f"y adds {kinds}: all labels of a classifier must be of one kind")


def _nothing(note: dict[str, Any], like: Tensor | None, world: World) -> Tensor:
    if like is not None:
        return like[:0]
    return torch.empty(0, note["columns"], dtype=getattr(torch, note["dtype"]), device=world.device)
