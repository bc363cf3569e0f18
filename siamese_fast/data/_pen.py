"""The path of a pen: a printed glyph thinned to its skeleton, and the skeleton drawn with pens of given
widths.

Paths live on a grid three times as fine as the image. A pen of width w inks the points closer than w / 2 to
the path, with an edge one grid step soft, and the image is the mean over 3x3 grid points.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from siamese_fast._extras import require

_FINE = 3

Path2d = npt.NDArray[np.bool_]
Pixels = npt.NDArray[np.uint8]


def trace(font: Any, character: str, drawn: float) -> Path2d | None:
    """The skeleton of a glyph whose longest side is `drawn` pixels; None for a mere dot or a blank."""
    image_module = require("PIL.Image", extra="data")
    skeletonize = require("skimage.morphology", extra="data").skeletonize
    mask = font.getmask(character, mode="L")
    glyph = image_module.frombytes("L", mask.size, bytes(mask))
    box = glyph.getbbox()
    if box is None:
        return None
    glyph = glyph.crop(box)
    scale = drawn * _FINE / max(glyph.size)
    sides = (max(1, round(glyph.width * scale)), max(1, round(glyph.height * scale)))
    fitted = np.asarray(glyph.resize(sides, image_module.Resampling.BOX))
    # The border lets ink that touches the edge be thinned from all sides.
    path: Path2d = skeletonize(np.pad(fitted > 127, 1))
    rows, columns = np.flatnonzero(path.any(axis=1)), np.flatnonzero(path.any(axis=0))
    extent = max(np.ptp(rows), np.ptp(columns)) if len(rows) else 0
    return path if 2 * extent > drawn * _FINE else None


def draw(path: Path2d, size: int, pens: Sequence[float]) -> Pixels:
    """The path, in the middle of the image, drawn by each pen: uint8 `[number of pens, size, size]`."""
    distance_transform = require("scipy.ndimage", extra="data").distance_transform_edt
    distance = distance_transform(~_centred(path, size * _FINE))
    widths = np.asarray(pens, dtype=np.float64)[:, None, None] * _FINE
    ink = np.clip(widths / 2 + 0.5 - distance, 0.0, 1.0)
    image = ink.reshape(len(widths), size, _FINE, size, _FINE).mean(axis=(2, 4))
    drawn: Pixels = np.rint(image * 255.0).astype(np.uint8)
    return drawn


def distinct(
    paths: Sequence[Path2d], turned: Sequence[bool], drawn: float, farthest: float, mean: float
) -> list[int]:
    """The paths that look like no earlier kept one, by index, in their order.

    Two paths look alike when no point of either is farther than `farthest` pixels from the other, and the
    points of each are on average no farther than `mean` (the Hausdorff distance, and the modified one of
    Dubuisson and Jain, 1994). Where `turned` holds for the later of the two, its turns by 90, 180 and 270
    degrees are compared as well.

    Both conditions are matrix products. With ink `a` and distance map `d`, the sum of the distances from i to
    j is `a_i . d_j`, and `a_i . [d_j > farthest]` counts the points of i that are too far from j.
    """
    distance_transform = require("scipy.ndimage", extra="data").distance_transform_edt
    side = math.ceil(drawn) + 3
    grids = [
        _centred(path, side * _FINE).reshape(side, _FINE, side, _FINE).any(axis=(1, 3)) for path in paths
    ]
    ink = torch.from_numpy(np.stack(grids)).float()
    distances = torch.from_numpy(np.stack([distance_transform(~grid) for grid in grids])).float().flatten(1)
    points = ink.sum(dim=(1, 2)).unsqueeze(1)
    near = []
    for turns in range(4):
        turned_ink = torch.rot90(ink, turns, (1, 2)).flatten(1)
        none_far = turned_ink @ (distances > farthest).float().T == 0
        near.append(none_far & (turned_ink @ distances.T <= mean * points))
    # near[t][i, j]: i turned t times lies near j. That j lies near it is near[-t][j, i].
    alike = [near[turns] & near[-turns % 4].T for turns in range(4)]
    any_turn = torch.tensor(turned).unsqueeze(1)
    same = (alike[0] | (any_turn & (alike[1] | alike[2] | alike[3]))).numpy()
    kept: list[int] = []
    for i in range(len(paths)):
        if not same[i, kept].any():
            kept.append(i)
    return kept


def _centred(path: Path2d, side: int) -> Path2d:
    height, width = path.shape
    if max(height, width) > side:
        raise ValueError(f"a path of {width}x{height} grid points does not fit into {side}x{side}")
    canvas = np.zeros((side, side), dtype=np.bool_)
    top, left = (side - height) // 2, (side - width) // 2
    canvas[top : top + height, left : left + width] = path
    return canvas
