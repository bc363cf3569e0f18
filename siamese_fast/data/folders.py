"""One's own images: a folder of class folders, a CSV of paths and labels, or arrays.

Grey images are kept with ink bright, as everything else in this package: an image with a bright border is
    taken for dark
ink on light paper and inverted, unless told otherwise.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from siamese_fast._extras import require
from siamese_fast.data._ink import check_sizes, cut_to_ink, fitted
from siamese_fast.data.imageset import ImageSet

Ink = Literal["auto", "dark", "bright"]
_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm"})


def image_folder(
    root: str | Path,
    size: int | None = None,
    *,
    drawn: int | None = None,
    ink: Ink = "auto",
    color: bool = False,
) -> ImageSet:
    """The images of `root`/CLASS/..., one class for each folder, in the order of their names.

    Args:
        root: the folder of class folders. Files and folders whose name starts with a dot are left out.
        size: side of the square images: each is fitted in, its proportions kept. None: as they are, all of
            one size.
        drawn: with `size`, cut each image to its ink and make its longest side `drawn` pixels, in the middle,
            as the glyphs and digits of this package are (20 in 28).
        ink: "dark" (inverted), "bright", or "auto" (by the border). Colour images are never inverted.
        color: RGB images `[N, 3, H, W]` instead of grey ones `[N, H, W]`.

    Raises:
        FileNotFoundError: `root` is not a folder.
        ValueError: no class folder, a class folder without images, a file that is no readable image, images
            of different sizes without `size` (the message names the file), or options that do not go
            together.
        ImportError: Pillow is missing.

    Example:
        >>> support = image_folder("my_letters", size=28, drawn=20)
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"root must be a folder of class folders, got {root}")
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise ValueError(f"{root} holds no class folder (expected {root}/CLASS/IMAGE.png)")
    files: list[Path] = []
    labels: list[int] = []
    for label, folder in enumerate(folders):
        found = image_files(folder)
        if not found:
            raise ValueError(f"{folder} holds no image ({', '.join(sorted(_SUFFIXES))})")
        files += found
        labels += [label] * len(found)
    images = read_images(files, size, drawn=drawn, ink=ink, color=color)
    return ImageSet(images, torch.tensor(labels), tuple(folder.name for folder in folders))


def image_csv(
    path: str | Path,
    size: int | None = None,
    *,
    drawn: int | None = None,
    ink: Ink = "auto",
    color: bool = False,
) -> ImageSet:
    """The images that a CSV file lists in its columns `path` and `label` (other columns are ignored).

    Paths are taken from the CSV's folder. Classes are the labels, sorted. The options are those of
    `image_folder`.

    Raises:
        FileNotFoundError: the CSV file, or an image it names, is not there.
        ValueError: a column is missing, there are no rows, or as for `image_folder`.

    Example:
        >>> letters = image_csv("letters.csv", size=28)
    """
    path = Path(path)
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        if not {"path", "label"} <= set(reader.fieldnames or ()):
            raise ValueError(
                f"{path} must start with a line of column names with path and label, got {reader.fieldnames}"
            )
        rows = [_row(path, reader.line_num, row) for row in reader]
    if not rows:
        raise ValueError(f"{path} lists no images")
    classes = sorted({label for _, label in rows})
    label_of = {name: label for label, name in enumerate(classes)}
    images = read_images([path.parent / name for name, _ in rows], size, drawn=drawn, ink=ink, color=color)
    return ImageSet(images, torch.tensor([label_of[label] for _, label in rows]), tuple(classes))


def from_arrays(images: Any, labels: Any, classes: Sequence[str] | None = None) -> ImageSet:
    """An ImageSet from numpy arrays or torch tensors, ink bright.

    Args:
        images: `[N, H, W]` or `[N, C, H, W]`, uint8, bool, or floating point in [0, 1].
        labels: `[N]`, of any type that sorts. Without `classes` the classes are its distinct values, in
            order.
        classes: names; `labels` are then integers 0 .. len(classes) - 1.

    Raises:
        ValueError: a shape, dtype or value that does not fit the description above.

    Example:
        >>> letters = from_arrays(np.zeros((4, 28, 28), np.uint8), ["a", "a", "b", "b"])
    """
    pixels = _as_uint8(torch.as_tensor(images))
    names = np.asarray(labels)
    if names.shape != (len(pixels),):
        raise ValueError(f"labels must be of shape [{len(pixels)}], one per image; got {list(names.shape)}")
    if classes is not None:
        if names.dtype.kind not in "iu":
            raise ValueError(f"labels must be integers when classes are given, got {names.dtype}")
        return ImageSet(pixels, torch.from_numpy(names.astype(np.int64)), tuple(classes))
    values, index = np.unique(names, return_inverse=True)
    return ImageSet(pixels, torch.from_numpy(index.astype(np.int64)), tuple(str(value) for value in values))


def image_files(folder: str | Path) -> list[Path]:
    """The image files in `folder` and below, sorted; names that start with a dot are left out."""
    folder = Path(folder)
    found = (path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file())
    return sorted(
        path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def read_images(
    files: Sequence[str | Path],
    size: int | None = None,
    *,
    drawn: int | None = None,
    ink: Ink = "auto",
    color: bool = False,
) -> Tensor:
    """Read image files into one uint8 tensor `[N, H, W]`, or `[N, 3, H, W]` with `color`; options as in
    `image_folder`.

    Raises:
        FileNotFoundError, ValueError: as in `image_folder`; the message names the file.
    """
    if ink not in ("auto", "dark", "bright"):
        raise ValueError(f"ink must be 'auto', 'dark' or 'bright', got {ink!r}")
    check_sizes(size, drawn)
    if color and drawn is not None:
        raise ValueError(f"drawn is for grey images; got drawn={drawn} with color=True")
    if not files:
        raise ValueError("files must name at least one image")
    images: list[Tensor] = []
    for file in files:
        image = torch.from_numpy(_read(Path(file), size, drawn, ink, color))
        if images and image.shape != images[0].shape:
            sides = [f"{one.shape[1]}x{one.shape[0]}" for one in (image, images[0])]
            raise ValueError(
                f"{file} is {sides[0]}, {files[0]} is {sides[1]}: images of different sizes need size="
            )
        images.append(image)
    stacked = torch.stack(images)
    return stacked.permute(0, 3, 1, 2).contiguous() if color else stacked


def _row(path: Path, line: int, row: dict[str, str | None]) -> tuple[str, str]:
    for column in ("path", "label"):
        if not row[column]:
            raise ValueError(f"line {line} of {path} has no {column}")
    return str(row["path"]), str(row["label"])


def _read(
    file: Path, size: int | None, drawn: int | None, ink: Ink, color: bool
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    image_module = require("PIL.Image", extra="data")
    try:
        with image_module.open(file) as opened:
            image = _flattened(opened, image_module, color)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(f"{file} is not a readable image") from error
    if not color and (ink == "dark" or (ink == "auto" and _bright_border(np.asarray(image)))):
        image = image.point(lambda value: 255 - value)
    if drawn is not None:
        image = cut_to_ink(image)
    if size is not None:
        image = fitted(image, size, drawn or size)
    return np.array(image, dtype=np.uint8)


def _flattened(image: Any, image_module: Any, color: bool) -> Any:
    """Grey or RGB; what is transparent shows white paper."""
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layers = image.convert("RGBA")
        paper = image_module.new("RGBA", layers.size, "white")
        image = image_module.alpha_composite(paper, layers)
    return image.convert("RGB" if color else "L")


def _bright_border(pixels: np.ndarray[Any, np.dtype[np.uint8]]) -> bool:
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return bool(np.median(border) > 127)


def _as_uint8(images: Tensor) -> Tensor:
    if images.dtype == torch.bool:
        return images.to(torch.uint8) * 255
    if images.is_floating_point():
        if images.numel() and not bool(((images >= 0) & (images <= 1)).all()):
            raise ValueError("images of floating point must lie in [0, 1] and hold no NaN")
        return (images * 255).round().to(torch.uint8)
    if images.dtype != torch.uint8:
        raise ValueError(f"images must be uint8, bool or floating point in [0, 1], got {images.dtype}")
    return images
