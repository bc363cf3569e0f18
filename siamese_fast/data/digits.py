"""Handwritten digits: the 1,797 of the UCI optical recognition set that ship inside scikit-learn, for testing
only.

Each is 8x8 pixels with 17 levels of ink (Alpaydin and Kaynak, 1998). They are enlarged smoothly to the size
at which the glyphs are drawn.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from siamese_fast._extras import require
from siamese_fast.data.augment import centre_crop
from siamese_fast.data.imageset import ImageSet


def digits(size: int = 28, drawn: int = 20) -> ImageSet:
    """scikit-learn's handwritten digits, `drawn` pixels high in the middle of `size` x `size`.

    Returns:
        ImageSet: uint8 images `[1797, size, size]` and ten classes "0" to "9".

    Raises:
        ValueError: `drawn` is not in 1 .. `size`.
        ImportError: scikit-learn is missing.

    Example:
        >>> test = digits()
        >>> test.images.shape
        torch.Size([1797, 28, 28])
    """
    if not 1 <= drawn <= size:
        raise ValueError(f"drawn must lie in 1 .. size = {size}, got {drawn}")
    bundled = require("sklearn.datasets", extra="data").load_digits()
    small = torch.from_numpy(np.asarray(bundled.images, dtype=np.float32)).unsqueeze(1) / 16
    large = (
        F.interpolate(small, size=(drawn, drawn), mode="bicubic", align_corners=False).clamp(0, 1).squeeze(1)
    )
    images = centre_crop((large * 255).round().to(torch.uint8), size)
    labels = torch.from_numpy(np.asarray(bundled.target, dtype=np.int64))
    return ImageSet(images, labels, tuple(str(digit) for digit in range(10)))
