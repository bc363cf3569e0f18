"""Glyphs: the embedded training set, printed characters made to look handwritten.

Every character of many alphabets is a class and every font face that draws it an example. The faces are those
that ship inside matplotlib, so nothing is downloaded and this package carries no font and no image. A printed
glyph is thinned to its skeleton (Zhang and Suen, 1984) and the skeleton is drawn again with pens of several
widths: what is left is the path of a pen, as in handwriting.

Characters that look alike, also after a turn by 90, 180 or 270 degrees, are kept once. Digits, and characters
that
contain one, are never drawn: a network trained here has not seen the digits it is tested on.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from siamese_fast.data._cache import cache_dir, written_whole
from siamese_fast.data._characters import Glyph, characters, font_paths, open_fonts
from siamese_fast.data._pen import Path2d, Pixels, distinct, draw, trace
from siamese_fast.data._progress import progress_bar
from siamese_fast.data.augment import Augmentation, centre_crop
from siamese_fast.data.imageset import ImageSet

Split = Literal["train", "test"]
_VERSION = 1
_HAND = Augmentation(rotation=8.0, scale=0.1, shear=0.12, translation=0.5, elastic=0.06, gain=0.0)


@dataclass(frozen=True)
class GlyphRecipe:
    """How the glyphs are drawn; part of the cache key, so a changed recipe is drawn anew.

    Attributes:
        size: side of the image in pixels. The margin round the glyph is room for augmentation.
        drawn: longest side of the printed glyph in pixels.
        pens: pen widths in pixels. A training glyph is drawn with each of them, a test glyph with one,
            another for each face in turn.
        hand: the distortion of each test glyph, once and for all, as if every example came from another hand.
            Training glyphs are left straight: they are distorted anew in every batch.
        farthest, mean: two characters count as one when no point of either path is farther from the other
            than `farthest` pixels, and the average point no farther than `mean`.
    """

    size: int = 35
    drawn: float = 20.0
    pens: tuple[float, ...] = (1.4, 2.2, 3.2)
    hand: Augmentation = _HAND
    farthest: float = 3.0
    mean: float = 0.6


def glyphs(
    split: Split = "train",
    *,
    size: int | None = None,
    recipe: GlyphRecipe | None = None,
    cache: bool = True,
    progress: bool = True,
) -> ImageSet:
    """Printed characters as handwriting: about 1,000 training classes, or the held-out alphabets.

    The first call draws both splits (about 20 seconds on one core) and keeps them in the cache folder
    (`SIAMESE_FAST_CACHE`, else `$XDG_CACHE_HOME/siamese_fast`); later calls read them.

    Args:
        split: "train", or "test": the alphabets Armenian, Georgian, Hebrew, Tifinagh, N'Ko and Lao, of which
            no character, and nothing that looks like one, is in "train".
        size: side of the images, cut from the middle of the drawn ones. By default 35 for "train", which
            leaves a margin for augmentation to crop to 28, and 28 for "test".
        recipe: how to draw; None for `GlyphRecipe()`.
        cache: read and write the cache folder.
        progress: show a progress bar while drawing, on a terminal.

    Returns:
        ImageSet: uint8 images `[N, size, size]`, one group for each alphabet.

    Raises:
        ValueError: `split` or `size` is not one of those above.
        ImportError: matplotlib, Pillow, fontTools or scikit-image is missing.

    Example:
        >>> letters = glyphs("test")
        >>> batch = letters.tensor([0, 1])  # float32 [2, 1, 28, 28]
    """
    if split not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test', got {split!r}")
    recipe = recipe or GlyphRecipe()
    if size is None:
        size = recipe.size if split == "train" else min(28, recipe.size)
    if not 1 <= size <= recipe.size:
        raise ValueError(f"size must lie in 1 .. {recipe.size} (the size drawn), got {size}")
    path = cache_dir() / f"glyphs-{_key(recipe)}.safetensors"
    if cache and path.is_file():
        found = _load(path, split)
    else:
        drawn = _draw(recipe, progress)
        if cache:
            _save(path, drawn)
        found = drawn[split]
    if size == recipe.size:
        return found
    return replace(found, images=centre_crop(found.images, size))


def _draw(recipe: GlyphRecipe, progress: bool) -> dict[Split, ImageSet]:
    glyphs_found = characters()
    fonts = open_fonts()
    paths: list[list[Path2d]] = []
    total = sum(len(glyph.faces) for glyph in glyphs_found)
    with progress_bar("drawing glyphs", total, shown=progress) as advance:
        for glyph in glyphs_found:
            traced = [trace(fonts[face], glyph.character, recipe.drawn) for face in glyph.faces]
            paths.append([path for path in traced if path is not None])
            advance(len(glyph.faces))
    drawn = [i for i, found in enumerate(paths) if len(found) >= 2]
    # Held-out characters are compared upright, as they are tested, the others turned too, as trained on.
    turned = [not glyphs_found[i].held_out for i in drawn]
    kept = distinct([paths[i][0] for i in drawn], turned, recipe.drawn, recipe.farthest, recipe.mean)
    chosen = [(glyphs_found[drawn[i]], paths[drawn[i]]) for i in kept]
    return {
        "train": _as_set([pair for pair in chosen if not pair[0].held_out], recipe, every_pen=True),
        "test": _by_hand(
            _as_set([pair for pair in chosen if pair[0].held_out], recipe, every_pen=False), recipe
        ),
    }


def _as_set(chosen: list[tuple[Glyph, list[Path2d]]], recipe: GlyphRecipe, every_pen: bool) -> ImageSet:
    scripts = tuple(dict.fromkeys(glyph.script for glyph, _ in chosen))
    images: list[Pixels] = []
    labels: list[int] = []
    for label, (_, paths) in enumerate(chosen):
        for face, path in enumerate(paths):
            pens = recipe.pens if every_pen else (recipe.pens[face % len(recipe.pens)],)
            images.append(draw(path, recipe.size, pens))
            labels += [label] * len(pens)
    return ImageSet(
        images=torch.from_numpy(np.concatenate(images)),
        labels=torch.tensor(labels),
        classes=tuple(glyph.character for glyph, _ in chosen),
        groups=torch.tensor([scripts.index(glyph.script) for glyph, _ in chosen]),
        group_names=scripts,
    )


def _by_hand(images: ImageSet, recipe: GlyphRecipe) -> ImageSet:
    hand = replace(recipe.hand, size=recipe.size)
    distorted = hand(images.tensor(), torch.Generator().manual_seed(0)).squeeze(1)
    return replace(images, images=(distorted * 255).round().to(torch.uint8))


def _key(recipe: GlyphRecipe) -> str:
    """A digest of everything the images follow from: this module's version, the recipe and the font files."""
    digest = hashlib.sha256(f"{_VERSION} {sorted(asdict(recipe).items())}".encode())
    for face, path in sorted(font_paths().items()):
        digest.update(face.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _save(path: Path, splits: dict[Split, ImageSet]) -> None:
    tensors: dict[str, Tensor] = {}
    names: dict[str, str] = {}
    for split, found in splits.items():
        for field in ("images", "labels", "groups"):
            tensors[f"{split}.{field}"] = getattr(found, field)
        names[split] = json.dumps({"classes": found.classes, "group_names": found.group_names})
    with written_whole(path) as partial:
        save_file(tensors, partial, metadata=names)


def _load(path: Path, split: Split) -> ImageSet:
    with safe_open(path, framework="pt") as stored:
        names = json.loads(stored.metadata()[split])
        images, labels, groups = (
            stored.get_tensor(f"{split}.{field}") for field in ("images", "labels", "groups")
        )
    return ImageSet(images, labels, tuple(names["classes"]), groups, tuple(names["group_names"]))
