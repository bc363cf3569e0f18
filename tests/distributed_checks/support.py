"""The sharded classifier against the one-process classifier with the same support set."""

from __future__ import annotations

import importlib.util
import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

import siamese_fast
from distributed_checks.common import own, raises, split
from siamese_fast import prediction
from siamese_fast.distributed import OneShotClassifier
from siamese_fast.distributed.world import World
from siamese_fast.network import KochHead, MLPEncoder, SiameseNetwork

METRICS = ("euclidean", "sqeuclidean", "cosine", "dot", "manhattan")
REDUCTIONS = ("max", "mean", "prototype")
D = 6


def data(rows: int, seed: int = 0, whole: bool = False) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    if whole:  # many exact ties
        return torch.randint(-1, 2, (rows, D), generator=generator).float()
    return torch.randn(rows, D, generator=generator)


def names(rows: int, classes: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.array([f"class {i}" for i in np.random.default_rng(seed).integers(classes, size=rows)])


def pair(
    world: World, x: Tensor, y: np.ndarray[Any, Any], counts: list[int], **options: Any
) -> tuple[prediction.OneShotClassifier, OneShotClassifier]:
    """The classifier in one process, and over ranks with `counts` examples each."""
    here = own(world, counts)
    mine = (x[here], y[here]) if counts[world.rank] else (None, None)
    return siamese_fast.OneShotClassifier(**options).fit(x, y), OneShotClassifier(**options).fit(*mine)


def same_answers(
    world: World, one: prediction.OneShotClassifier, many: OneShotClassifier, queries: Any, k: int = 3
) -> None:
    asked = queries if world.rank == 0 else None
    assert (many.classes_ == one.classes_).all()
    labels, ties = many.predict(asked, return_ties=True)
    expected, expected_ties = one.predict(queries, return_ties=True)
    assert (labels == expected).all() and labels.dtype == expected.dtype
    if one.reduce == "max":
        assert (ties == expected_ties).all()
        np.testing.assert_array_equal(many.class_scores(asked), one.class_scores(queries))
        for got, right in zip(many.kneighbors(asked, k), one.kneighbors(queries, k), strict=True):
            np.testing.assert_array_equal(got, right)
    else:
        np.testing.assert_allclose(many.class_scores(asked), one.class_scores(queries), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(many.predict_proba(asked), one.predict_proba(queries), atol=1e-5)
    truth = one.classes_[np.arange(len(queries)) % len(one.classes_)]
    weight = np.linspace(1, 2, len(queries))
    assert (
        abs(many.score(asked, truth if world.rank == 0 else None, weight) - one.score(queries, truth, weight))
        < 1e-9
    )


def same_support(world: World, one: prediction.OneShotClassifier, many: OneShotClassifier) -> None:
    """The shards together are the support set, and no rank holds two more than another."""
    sizes = world.gather(torch.tensor(len(many.support_))).tolist()
    assert max(sizes) - min(sizes) <= 1 and sum(sizes) == len(one.support_), sizes
    places = torch.from_numpy(many.support_positions_)
    assert (places.diff() > 0).all()
    assert torch.equal(many.support_, one.support_[places])
    assert (many.support_labels_ == one.support_labels_[places.numpy()]).all()
    together = torch.cat(world.gather_list(places)).sort().values
    assert torch.equal(together, torch.arange(len(one.support_)))


def check_answers_are_those_of_one_process(world: World) -> None:
    x, y, queries = data(42), names(42, 7), data(9, seed=1)
    for metric, reduce in itertools.product(METRICS, REDUCTIONS):
        for kind in ("unequal", "empty") if metric == "cosine" else ("equal",):
            counts = split(world, 36, kind)
            rows = sum(counts)
            one, many = pair(world, x[:rows], y[:rows], counts, metric=metric, reduce=reduce)
            same_support(world, one, many)
            same_answers(world, one, many, queries)


def check_ties_on_whole_numbers(world: World) -> None:
    for seed, metric in itertools.product(range(3), ("sqeuclidean", "dot", "manhattan")):
        counts = split(world, 30, "unequal")
        x, y = data(sum(counts), seed, whole=True), names(sum(counts), 9, seed)
        one, many = pair(world, x, y, counts, metric=metric)
        same_answers(world, one, many, data(12, seed + 9, whole=True), k=7)


def check_many_classes_are_decided_by_neighbours(world: World) -> None:
    counts = split(world, 5000, "equal")
    x = (data(2500, whole=True) + torch.arange(2500)[:, None] // 50).repeat(2, 1)  # every row twice
    y = np.arange(5000)
    one, many = pair(world, x, y, counts)
    queries = x[::400] + 0.25
    labels, ties = many.predict(queries if world.rank == 0 else None, return_ties=True)
    expected = one.predict(queries, return_ties=True)
    assert (labels == expected[0]).all() and (ties == expected[1]).all() and ties.max() > 1


def check_all_examples_from_one_rank_are_shared_out(world: World) -> None:
    for rows in (1, world.size - 1, 20):  # also fewer examples than ranks
        counts = split(world, rows, "last")
        one, many = pair(world, data(rows), names(rows, 3), counts)
        same_support(world, one, many)
        same_answers(world, one, many, data(4, seed=2), k=1)
        assert many.predict(data(0)).shape == (0,) and many.class_scores(data(0)).shape == (
            0,
            len(one.classes_),
        )


def check_adding_and_removing(world: World) -> None:
    random = np.random.default_rng(3)
    counts = split(world, 20, "equal")
    one, many = pair(world, data(20), names(20, 4), counts, metric="manhattan")
    for step in range(8):
        added = int(random.integers(1, 9))
        counts = split(world, added * world.size, ("unequal", "empty", "last")[step % 3])
        x, y = data(sum(counts), step), names(sum(counts), 3 + step, step)
        here = own(world, counts)
        one.add_support(x, y)
        many.add_support(*((x[here], y[here]) if counts[world.rank] else (None, None)))
        same_support(world, one, many)
        if step % 2:
            label = one.classes_[int(random.integers(len(one.classes_)))]
            one.remove(label=label)
            many.remove(label=label if world.rank == 0 else "not looked at")
        else:
            index = random.choice(len(one.support_), size=5, replace=False) - len(one.support_) // 2
            one.remove(index=index)
            many.remove(index=index)
        same_support(world, one, many)
        same_answers(world, one, many, data(5, seed=50 + step))
    one.remove(index=np.arange(len(one.support_)))
    many.remove(
        index=np.arange(len(many.support_positions_) and int(world.sum(torch.tensor(len(many.support_)))))
    )
    raises(ValueError, "not fitted", lambda: many.predict(data(1)))
    same_support(
        world,
        one.add_support(data(5), names(5, 2)),
        many.add_support(*_on_rank_0(world, data(5), names(5, 2))),
    )


def check_networks_and_heads(world: World) -> None:
    torch.manual_seed(0)
    images, y, queries = torch.rand(24, 1, 4, 4), np.arange(24) % 5, torch.rand(7, 1, 4, 4)
    for hidden, reduce in itertools.product(((), (8,)), REDUCTIONS):
        network = SiameseNetwork(MLPEncoder(16, (12,), 6), KochHead(6, hidden)).eval()
        counts = split(world, 24, "equal")
        one, many = pair(world, images, y, counts, encoder=network, reduce=reduce)
        asked = queries if world.rank == 0 else None
        np.testing.assert_allclose(many.class_scores(asked), one.class_scores(queries), rtol=1e-5, atol=1e-5)
        assert (many.predict(asked) == one.predict(queries)).all()
        assert (many.kneighbors(asked, 9, False) == one.kneighbors(queries, 9, False)).all()


def check_open_set_and_dtypes(world: World) -> None:
    for dtype in (torch.float64, torch.float16, torch.bfloat16):
        counts = split(world, 24, "equal")
        x, y = data(24).to(dtype), np.arange(24) % 6 > 2
        one, many = pair(world, x, y, counts, threshold=-2.0, unknown_label="nobody")
        queries = data(6, seed=4).to(dtype) * 2
        labels = many.predict(queries if world.rank == 0 else None)
        assert (labels == one.predict(queries)).all() and "nobody" in labels.tolist()


def check_an_approximate_index_on_every_rank(world: World) -> None:
    if importlib.util.find_spec("faiss") is None:
        return
    counts = split(world, 240, "unequal")
    rows = sum(counts)
    x, y, queries = data(rows), np.arange(rows), data(15, seed=1)
    one, many = pair(world, x, y, counts, metric="cosine")
    many.approximate = "IVF4,Flat;nprobe=4"
    many.remove(index=5)
    one.remove(index=5)
    asked = queries if world.rank == 0 else None
    assert (many.predict(asked) == one.predict(queries)).all()
    assert (many.kneighbors(asked, 7, False) == one.kneighbors(queries, 7, False)).all()
    many.approximate = "IVF1000,Flat"
    raises(ValueError, "not possible here", lambda: many.remove(index=0))


def check_saving_and_loading(world: World) -> None:
    """From any number of ranks to any other, this process alone included."""
    folder = Path(world.shared(tempfile.mkdtemp))
    counts = split(world, 31, "unequal")
    x, y, queries = data(sum(counts)), names(sum(counts), 6), data(5, seed=1)
    one, many = pair(world, x, y, counts, metric="cosine", temperature=0.5)
    many.remove(index=3)
    one.remove(index=3)
    many.save(folder / "many")
    assert len(list((folder / "many").glob("*.safetensors"))) == world.size
    back = siamese_fast.OneShotClassifier.load(folder / "many")
    assert torch.equal(back.support_, one.support_) and (back.support_labels_ == one.support_labels_).all()
    if world.rank == 0:
        one.save(folder / "one")
    dist.barrier()
    # The last ranks: their numbers in the group are not those in the world.
    groups = {size: dist.new_group(range(world.size - size, world.size)) for size in range(1, world.size)}
    for source in ("many", "one"):
        loaded = OneShotClassifier.load(folder / source)
        assert loaded.metric == "cosine" and loaded.temperature == 0.5
        same_support(world, one, loaded)
        same_answers(world, one, loaded, queries)
        for size, group in groups.items():
            if world.rank >= world.size - size:
                part = World(group)
                fewer = OneShotClassifier.load(folder / source, group=group)
                same_support(part, one, fewer)
                same_answers(part, one, fewer, queries)
                fewer.save(folder / f"{source}-{size}")
                more = siamese_fast.OneShotClassifier.load(folder / "one")
                more.add_support(data(9, seed=5), names(9, 2))
                fewer.add_support(*_on_rank_0(part, data(9, seed=5), names(9, 2)))
                same_support(part, more, fewer)  # shared out within the group
            dist.barrier()
            same_support(world, one, OneShotClassifier.load(folder / f"{source}-{size}"))


def check_an_interrupted_save_leaves_the_old_one(world: World) -> None:
    from siamese_fast.prediction import storage

    folder = Path(world.shared(tempfile.mkdtemp))
    counts = split(world, 16, "equal")
    old, many = pair(world, data(16), names(16, 4), counts)
    many.save(folder)
    many.add_support(*_on_rank_0(world, data(3), names(3, 2)))
    write = storage.write_tensors
    if world.rank == world.size - 1:

        def full(*_: Any) -> dict[str, str]:
            raise OSError("disk full")

        storage.write_tensors = full
    raises(Exception, "disk full", lambda: many.save(folder))
    storage.write_tensors = write
    same_support(world, old, OneShotClassifier.load(folder))
    many.save(folder)
    assert len(list(folder.glob("*.safetensors"))) == world.size  # leftovers are gone
    dist.barrier()
    file = folder / f"{sorted(path.name for path in folder.glob('*.safetensors'))[-1]}"
    if world.rank == 0:
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
    dist.barrier()
    raises(ValueError, "is damaged", lambda: OneShotClassifier.load(folder))
    raises(FileNotFoundError, "classifier.json", lambda: OneShotClassifier.load(folder / "none"))


def check_a_save_to_folders_of_their_own_leaves_the_old_one(world: World) -> None:
    folder = Path(world.shared(tempfile.mkdtemp))
    counts = [5] * world.size
    old, many = pair(world, data(sum(counts)), names(sum(counts), 4), counts)
    many.save(folder)
    many.add_support(*_on_rank_0(world, data(3), names(3, 2)))
    own_folder = folder if world.rank == 0 else folder / f"of {world.rank}"
    raises(FileNotFoundError, "a folder that all ranks see", lambda: many.save(own_folder))
    same_support(world, old, OneShotClassifier.load(folder))


def check_labels_as_each_rank_holds_them(world: World) -> None:
    """NumPy's integers in an object array, several kinds in `score`, dtypes that rounding would join."""
    last, x = world.rank == world.size - 1, data(6)
    y: Any = np.empty(6, dtype=object)
    y[:] = [np.int64(i) if last else i for i in range(6)]
    assert OneShotClassifier().fit(x, y).classes_.tolist() == list(range(6))
    one, many = pair(world, data(8 * world.size), np.arange(8 * world.size), [8] * world.size, threshold=-1.0)
    queries, mixed = data(5, seed=1), np.array([0, "nobody", None, True, 3], dtype=object)
    asked = queries if world.rank == 0 else None
    assert many.score(asked, mixed) == one.score(queries, mixed)
    signed, unsigned = np.array([2**60, -1]), np.array([2**60 + 1, 5], dtype=np.uint64)
    raises(
        ValueError, "without rounding", lambda: OneShotClassifier().fit(x[:2], unsigned if last else signed)
    )
    small = np.array([7, 5], dtype=np.uint64) if last else np.array([7, -1])
    assert OneShotClassifier().fit(x[:2], small).classes_.tolist() == [-1, 5, 7]


def check_bad_input_is_an_error_on_every_rank(world: World) -> None:
    last = world.rank == world.size - 1
    x, y = data(8), names(8, 3)
    unfitted = OneShotClassifier()

    def fit(x: Any = x, y: Any = y, **options: Any) -> Callable[[], object]:
        return lambda: OneShotClassifier(**options).fit(x, y)

    raises(ValueError, "not fitted", lambda: unfitted.predict(x))
    raises(ValueError, "at least one rank, got none", fit(None, None))
    raises(ValueError, "NaN or infinity", fit(x / 0 if last else x))
    raises(ValueError, "columns of the examples", fit(x[:, : D - last]))
    raises(ValueError, "dtype of the examples", fit(x.double() if last else x))
    raises(ValueError, "label kind of the examples", fit(x, np.arange(8) if last else y))
    raises(ValueError, "one label an example", fit(x, y[:3] if last else y))
    raises(ValueError, "metric must be one of", fit(metric="hamming"))
    raises(ValueError, "also the label of a class", fit(unknown_label=y[0]))
    many = OneShotClassifier().fit(x, y)
    many.unknown_label = y[0] if last else None
    raises(ValueError, "unknown_label", lambda: many.add_support(x, y))
    many.unknown_label = "nobody" if last else None
    raises(ValueError, "unknown_label must be the same", lambda: many.remove(index=0))
    many.unknown_label = None
    assert len(many.support_) == 8  # as it was, on every rank
    many.temperature = 0.0 if last else 1.0
    raises(ValueError, "temperature must be the same", lambda: many.predict_proba(x))
    many.temperature = 1.0
    raises(ValueError, "kind", lambda: many.add_support(x, np.arange(8)))
    raises(ValueError, "expecting 6 features", lambda: many.predict(x[:, :3] if world.rank == 0 else None))
    raises(ValueError, "NaN or infinity", lambda: many.predict(x * torch.nan))
    raises(ValueError, "n_neighbors must be in 1 ..", lambda: many.kneighbors(x, 10**6))
    raises(TypeError, "", lambda: many.kneighbors(x, 1.5))  # type: ignore[arg-type]
    raises(KeyError, "not among", lambda: many.remove(label="class 99"))
    raises(IndexError, "out of bounds", lambda: many.remove(index=10**6))
    raises(TypeError, "exactly one", lambda: many.remove())
    raises(ValueError, "one label an example|y must have", lambda: many.score(x, y[:2]))
    many.reduce = "mean" if last else "max"
    raises(ValueError, "reduce must be the same on every rank", lambda: many.predict(x))
    many.reduce = "max"
    assert len(many.predict(x if world.rank == 0 else None)) == 8


def _on_rank_0(world: World, x: Tensor, y: Any) -> tuple[Any, Any]:
    return (x, y) if world.rank == 0 else (None, None)
