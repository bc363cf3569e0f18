"""A sharded classifier on disk: the folder of `siamese_fast.prediction.storage`, one support file a rank.

Every file but the index is written first; rank 0 then replaces the index, once all ranks are done. Readers
number the rows of all files through and each takes an equal share, however many wrote them.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from siamese_fast.distributed.shards import Shard
from siamese_fast.distributed.world import World
from siamese_fast.prediction import storage
from siamese_fast.prediction.decisions import Array
from siamese_fast.prediction.inputs import Encoder

if TYPE_CHECKING:
    from siamese_fast.distributed.classifier import OneShotClassifier


def save(classifier: OneShotClassifier, world: World, shard: Shard, folder: Path, *, weights: bool) -> None:
    index = world.attempt(lambda: storage.described(classifier))
    entry = world.attempt(lambda: storage.write_tensors(folder, f"support-{world.rank}", shard._asdict()))
    entries = world.gather_json(entry)

    def commit() -> None:
        if world.rank == 0:
            _check_shared(folder, entries)
            storage.commit(classifier, folder, index, entries, weights=weights)

    world.attempt(commit)


def _check_shared(folder: Path, entries: list[dict[str, str]]) -> None:
    for rank, entry in enumerate(entries):
        if not _path(folder, entry).exists():
            raise FileNotFoundError(
                f"path must be a folder that all ranks see: rank 0 finds no {entry['file']} of rank {rank} "
                f"in {folder}"
            )


def load(
    kind: type[OneShotClassifier],
    world: World,
    folder: Path,
    encoder: Encoder | None,
    head: nn.Module | None,
    group: Any,
) -> tuple[OneShotClassifier, Shard, Array]:
    """The classifier without its support set, this rank's share of that, and all classes."""
    index = storage.read_index(folder)
    classifier: Any = storage.rebuilt(kind, folder, index, encoder, head, group=group)
    shard = _share(world, folder, index["support"])
    device = storage.device_of(encoder, head)
    shard = Shard(*(part.to(device) for part in shard))
    return classifier, shard.select(shard.position.argsort()), storage.classes_in(index)


def _share(world: World, folder: Path, entries: list[dict[str, str]]) -> Shard:
    """Rows `total r / W` to `total (r + 1) / W` of all files; only the files that hold some are read."""
    counts = [_rows_in(folder, entry) for entry in entries]
    parts: list[Shard] = []
    total, first = sum(counts), 0
    begin, end = total * world.rank // world.size, total * (world.rank + 1) // world.size
    for entry, count in zip(entries, counts, strict=True):
        low, high = min(max(begin - first, 0), count), min(end - first, count)
        if low < high:
            parts.append(_read(folder, entry, first, low, high))
        first += count
    parts = parts or [_read(folder, entries[0], 0, 0, 0)]
    return Shard(*(torch.cat(part) for part in zip(*parts, strict=True)))


def _rows_in(folder: Path, entry: dict[str, str]) -> int:
    with safe_open(_path(folder, entry), framework="pt") as file:
        return int(file.get_slice("class_index").get_shape()[0])


def _read(folder: Path, entry: dict[str, str], first: int, low: int, high: int) -> Shard:
    """Rows `low` to `high` of one file; its row 0 is number `first` of all."""
    path = _path(folder, entry)
    with path.open("rb") as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() != entry["sha256"]:
            raise storage.damaged(folder, entry)
    with safe_open(path, framework="pt") as file:

        def rows(name: str) -> Tensor:
            part: Tensor = file.get_slice(name)[low:high]
            return part.clone()

        numbered = "position" in file.keys()  # noqa: SIM118 (not a dict)
        position = rows("position") if numbered else torch.arange(first + low, first + high)
        return Shard(rows("embeddings"), rows("class_index"), position)


def _path(folder: Path, entry: dict[str, str]) -> Path:
    return folder / Path(entry["file"]).name
