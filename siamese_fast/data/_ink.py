"""Where the ink of a grey image lies, and how an image is fitted into a square."""

from __future__ import annotations

from typing import Any

from siamese_fast._extras import require

_FAINTEST = 64


def cut_to_ink(image: Any) -> Any:
    """A grey Pillow image (ink = 255) cut to what is at least a quarter inked; a blank one stays as it is."""
    box = image.point(lambda value: 255 if value >= _FAINTEST else 0).getbbox()
    return image.crop(box) if box else image


def fitted(image: Any, size: int, longest: int) -> Any:
    """The image made `longest` pixels along its longest side, in the middle of `size` x `size` of zeros."""
    image_module = require("PIL.Image", extra="data")
    scale = longest / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    kernel = image_module.Resampling.BOX if scale < 1 else image_module.Resampling.BICUBIC
    canvas = image_module.new(image.mode, (size, size))
    canvas.paste(image.resize((width, height), kernel), ((size - width) // 2, (size - height) // 2))
    return canvas


def check_sizes(size: int | None, drawn: int | None) -> None:
    """Raise a `ValueError` unless `size` is None or positive, and `drawn` None or in 1 .. `size`."""
    if size is not None and size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    if drawn is not None and (size is None or not 1 <= drawn <= size):
        raise ValueError(f"drawn must lie in 1 .. size, got drawn={drawn} with size={size}")
