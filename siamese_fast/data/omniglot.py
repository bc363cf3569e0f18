"""Omniglot (Lake, Salakhutdinov and Tenenbaum, Science 350, 2015) from its official archives.

`images_background.zip`, `images_evaluation.zip` and the two small background sets hold
`ARCHIVE/ALPHABET/characterNN/DRAWING.png`; `all_runs.zip` holds the official 20-way one-shot runs within an
alphabet as `runNN/training/*.png`, `runNN/test/*.png` and `runNN/class_labels.txt`. They are read as they
are, zipped or unpacked.

A drawing is 105x105 pixels with strokes of two or three, dark on white. It is turned to ink = 255, its
strokes are
widened by the maximum over 3x3 pixels, and it is made smaller by averaging areas: without the first step a
    stroke would
fade at 28x28.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from siamese_fast._extras import require
from siamese_fast.data._download import SHA256, download
from siamese_fast.data._ink import check_sizes, cut_to_ink, fitted
from siamese_fast.data.imageset import ImageSet

_RUNS = "all_runs"
Files = dict[PurePosixPath, Callable[[], bytes]]


class OneShotRun(NamedTuple):
    """One official run: `support` and `query` float32 `[20, 1, size, size]` in [0, 1], and `answer` int64
    `[20]`, the row of `support` that shows the character of each query.
    """

    name: str
    support: Tensor
    query: Tensor
    answer: Tensor


def omniglot(
    root: str | Path,
    names: str | Sequence[str] | None = None,
    size: int = 28,
    *,
    drawn: int | None = None,
    fetch: bool = False,
) -> ImageSet:
    """The drawings of one or more archives; a class is a character, a group its alphabet.

    Args:
        root: the folder that holds the archives (NAME.zip, or NAME/ unpacked), or one archive, zipped or
            unpacked.
        names: the archives to read from a folder, such as "images_evaluation". None: "images_background"
            where it is, otherwise the small background sets found.
        size: side of the images.
        drawn: cut each drawing to its ink and make its longest side `drawn` pixels, in the middle, as the
            glyphs of this package are (20 in 28). None: the whole page, made smaller.
        fetch: download archives that are missing into `root`, and check them against the known SHA-256.

    Returns:
        ImageSet: uint8 images `[N, size, size]`, ink = 255.

    Raises:
        FileNotFoundError: an archive is missing (the message says where it can be had).
        ValueError: an archive holds no drawings, or `size` or `drawn` is out of range.
        ConnectionError: `fetch` without a network.
        ImportError: Pillow is missing.

    Example:
        >>> train = omniglot("data/omniglot", "images_background_small1")
        >>> test = omniglot("data/omniglot", "images_evaluation", fetch=True)
    """
    check_sizes(size, drawn)
    images: list[Tensor] = []
    labels: list[int] = []
    classes: dict[tuple[str, str], int] = {}
    for archive in _archives(Path(root), names, fetch):
        with _files(archive) as files:
            drawings = sorted(path for path in files if _is_drawing(path))
            if not drawings:
                raise ValueError(f"{archive} holds no ALPHABET/characterNN/*.png")
            for path in drawings:
                images.append(_drawing(files[path](), size, drawn, f"{path} in {archive}"))
                labels.append(classes.setdefault((path.parts[-3], path.parts[-2]), len(classes)))
    alphabets = tuple(dict.fromkeys(alphabet for alphabet, _ in classes))
    return ImageSet(
        images=torch.stack(images),
        labels=torch.tensor(labels),
        classes=tuple(f"{alphabet}/{character}" for alphabet, character in classes),
        groups=torch.tensor([alphabets.index(alphabet) for alphabet, _ in classes]),
        group_names=alphabets,
    )


def omniglot_runs(root: str | Path, size: int = 28, *, drawn: int | None = None) -> list[OneShotRun]:
    """The official 20-way one-shot runs, as many as the archive holds, in order.

    Args:
        root: the folder that holds `all_runs.zip` or `all_runs/`, or either of these, or the folder of
            `run01` ...
        size, drawn: as in `omniglot`.

    Raises:
        FileNotFoundError: there is no such archive.
        ValueError: it holds no runs, or a run whose `class_labels.txt` names an image that is not there.

    Example:
        >>> for run in omniglot_runs("data/omniglot"):
        ...     error = (nearest(run.query, run.support) != run.answer).float().mean()
    """
    check_sizes(size, drawn)
    archive = _runs_archive(Path(root))
    with _files(archive) as files:
        keys = sorted(path for path in files if path.name == "class_labels.txt")
        if not keys:
            raise ValueError(f"{archive} holds no runNN/class_labels.txt")
        return [_run(files, key, size, drawn, archive) for key in keys]


def _run(files: Files, key: PurePosixPath, size: int, drawn: int | None, archive: Path) -> OneShotRun:
    folder = key.parent
    pairs = [line.split() for line in files[key]().decode().splitlines() if line.strip()]
    if not pairs:
        raise ValueError(f"{key} in {archive} names no images")
    # The paths of the list start with the run's folder, wherever that lies in the archive.
    queries, answers = zip(
        *((folder.parent / query, folder.parent / answer) for query, answer in pairs), strict=True
    )
    supports = sorted(path for path in files if path.parent == folder / "training" and path.suffix == ".png")
    missing = [path for path in (*queries, *answers) if path not in files]
    if missing:
        raise ValueError(f"{key} in {archive} names {missing[0]}, which is not there")

    def read(paths: Sequence[PurePosixPath]) -> Tensor:
        drawings = [_drawing(files[path](), size, drawn, f"{path} in {archive}") for path in paths]
        return torch.stack(drawings).unsqueeze(1).float() / 255

    return OneShotRun(
        folder.name, read(supports), read(queries), torch.tensor([supports.index(a) for a in answers])
    )


def _drawing(content: bytes, size: int, drawn: int | None, where: str) -> Tensor:
    image_module = require("PIL.Image", extra="data")
    filters = require("PIL.ImageFilter", extra="data")
    try:
        image = image_module.open(io.BytesIO(content)).convert("L").point(lambda value: 255 - value)
    except OSError as error:
        raise ValueError(f"{where} is not a readable image") from error
    if size < max(image.size):
        image = image.filter(filters.MaxFilter(3))
    if drawn is not None:
        image = cut_to_ink(image)
    return torch.from_numpy(np.array(fitted(image, size, drawn or size), dtype=np.uint8))


def _archives(root: Path, names: str | Sequence[str] | None, fetch: bool) -> list[Path]:
    if _is_zip(root) or (root.is_dir() and any(root.glob("*/character*/*.png"))):
        if names is not None:
            raise ValueError(
                f"names is for a folder of archives; {root} is one archive, so names must be None"
            )
        return [root]
    if names is None:
        small = [
            name for name in ("images_background_small1", "images_background_small2") if _find(root, name)
        ]
        names = small if small and not _find(root, "images_background") else ["images_background"]
    wanted = [names] if isinstance(names, str) else list(names)
    return [_find(root, name) or _fetched(root, name, fetch) for name in wanted]


def _fetched(root: Path, name: str, fetch: bool) -> Path:
    if fetch:
        return download(root, name)
    known = f"; fetch=True downloads it ({', '.join(SHA256)} can be had)" if name in SHA256 else ""
    raise FileNotFoundError(f"{root} has neither {name}.zip nor {name}/{known}")


def _runs_archive(root: Path) -> Path:
    if _is_zip(root) or (root.is_dir() and any(root.glob("run*/class_labels.txt"))):
        return root
    found = _find(root, _RUNS)
    if found is None:
        raise FileNotFoundError(
            f"{root} has neither {_RUNS}.zip nor {_RUNS}/; it lies at "
            "https://github.com/brendenlake/omniglot/tree/master/python/one-shot-classification"
        )
    return found


def _find(root: Path, name: str) -> Path | None:
    return next(
        (path for path in (root / f"{name}.zip", root / name) if _is_zip(path) or path.is_dir()), None
    )


def _is_zip(path: Path) -> bool:
    return path.is_file() and zipfile.is_zipfile(path)


def _is_drawing(path: PurePosixPath) -> bool:
    return path.suffix == ".png" and len(path.parts) >= 3 and path.parts[-2].startswith("character")


@contextmanager
def _files(archive: Path) -> Iterator[Files]:
    """How to read each file of a folder or zip, by its path inside; dot files are left out."""
    if archive.is_dir():
        found = (path for path in archive.rglob("*") if path.is_file())
        yield {
            _inside(path.relative_to(archive)): path.read_bytes
            for path in found
            if not path.name.startswith(".")
        }
        return
    with zipfile.ZipFile(archive) as opened:
        entries = (entry for entry in opened.infolist() if not entry.is_dir())
        yield {
            path: _reader(opened, entry)
            for entry in entries
            if not (path := PurePosixPath(entry.filename)).name.startswith(".")
        }


def _reader(opened: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Callable[[], bytes]:
    return lambda: opened.read(entry)


def _inside(path: Path) -> PurePosixPath:
    return PurePosixPath(path.as_posix())
