"""Augmentation of whole batches: a random affine map, an elastic one, pen pressure (gain) and loss of detail
(blur).

Affine and elastic maps are one: the place in the input that an output pixel (x, y) is read from is

    A (x, y) + t + sum_ij d_ij B_i(y) B_j(x)

with d a coarse grid of random displacements and B its interpolation weights. All of it is linear in (1, x, y,
B B'), so a matrix product makes the sampling grid of the whole batch and one `grid_sample` reads the pixels.
Elastic distortion
of characters: Simard, Steinkraus and Platt (2003).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from siamese_fast.data.imageset import ImageSet


@dataclass(frozen=True)
class Augmentation:
    """Random changes that keep a character the same character. Every amount set to 0 leaves that change out.

    Attributes:
        size: side of the output. The map keeps the scale, so a smaller output is a crop from the middle.
        rotation: largest angle, in degrees, either way.
        scale: largest change of size: factors from 1 - scale to 1 + scale, for width and height separately.
        shear: largest horizontal slant: x moves by up to `shear` times y.
        translation: largest shift, in pixels, in each direction.
        elastic: standard deviation of the displacements, as a share of half the output's side.
        elastic_grid: rows and columns of the grid of displacements.
        gain: largest change of ink: factors from 1 - gain to 1 + gain, then cut to [0, 1].
        blur: share of the images that are shrunk and enlarged back.
        blur_sizes: smallest and largest side they are shrunk to, in pixels.

    Raises:
        ValueError: an amount is negative or beyond what makes sense (the message names it).

    Example:
        >>> augment = Augmentation(size=28, rotation=15, elastic=0.09)
        >>> changed = augment(images, torch.Generator().manual_seed(0))  # [N, 1, 35, 35] -> [N, 1, 28, 28]
    """

    size: int = 28
    rotation: float = 12.0
    scale: float = 0.15
    shear: float = 0.15
    translation: float = 2.0
    elastic: float = 0.09
    elastic_grid: int = 4
    gain: float = 0.3
    blur: float = 0.0
    blur_sizes: tuple[int, int] = (10, 14)

    def __post_init__(self) -> None:
        for name in ("rotation", "scale", "shear", "translation", "elastic", "gain", "blur"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be 0 or more, got {getattr(self, name)}")
        if self.scale >= 1:
            raise ValueError(f"scale must be below 1, got {self.scale}")
        for name in ("gain", "blur"):
            if getattr(self, name) > 1:
                raise ValueError(f"{name} must be at most 1, got {getattr(self, name)}")
        if self.size < 1 or self.elastic_grid < 2:
            raise ValueError(
                f"size must be at least 1 and elastic_grid at least 2, got {self.size}, {self.elastic_grid}"
            )
        low, high = self.blur_sizes
        if not 1 <= low <= high:
            raise ValueError(f"blur_sizes must be two sizes, 1 <= smallest <= largest, got {self.blur_sizes}")

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Change a batch. `images` float32 `[N, C, H, W]` in [0, 1] -> `[N, C, size, size]`, same range.

        The result is a function of the images and the generator's state: the same bits on one machine.

        Raises:
            ValueError: images of another rank or dtype.
        """
        if images.ndim != 4 or not images.is_floating_point():
            raise ValueError(
                f"images must be floating point [N, C, H, W], got {images.dtype} {list(images.shape)}"
            )
        grid = self._grid(images, generator)
        changed = F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        if self.gain:
            factor = 1 + self.gain * _uniform((len(images), 1, 1, 1), generator, images)
            changed = changed * factor
        changed = changed.clamp_(0, 1)
        return self._blurred(changed, generator) if self.blur else changed

    def _grid(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Where each output pixel is read: `[N, size, size, 2]`, as `grid_sample` takes it."""
        count, _, height, width = images.shape
        turn, slant, across, down = _uniform((4, count), generator, images)
        stretch = 1 + self.scale * _uniform((count, 2), generator, images)
        angle = turn * math.radians(self.rotation)
        rotate = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=1).view(count, 2, 2)
        shape = torch.diag_embed(1 / stretch)
        shape[:, 0, 1] = slant * self.shear
        shift = torch.stack([across, down], dim=1) * (2 * self.translation / self.size)
        parts = [shift.unsqueeze(2), rotate @ shape]
        if self.elastic:
            cells = (count, 2, self.elastic_grid**2)
            bend = torch.randn(cells, generator=generator, device=images.device, dtype=images.dtype)
            parts.append(self.elastic * bend)
        basis = _basis(self.size, self.elastic_grid if self.elastic else 0).to(images)
        places = basis @ torch.cat(parts, dim=2).transpose(1, 2)  # [N, size * size, 2]
        # From half the output's side to half the input's, which is the unit of grid_sample.
        unit = places.new_tensor([self.size / width, self.size / height])
        return (places * unit).view(count, self.size, self.size, 2)

    def _blurred(self, images: Tensor, generator: torch.Generator) -> Tensor:
        low, high = self.blur_sizes
        draws = torch.rand(2, len(images), generator=generator, device=images.device)
        side = torch.where(draws[0] < self.blur, low + (draws[1] * (high - low + 1)).long(), 0)
        for small in range(low, high + 1):
            chosen = (side == small).nonzero().squeeze(1)
            if len(chosen):
                shrunk = F.adaptive_avg_pool2d(images[chosen], small)
                images[chosen] = F.interpolate(shrunk, size=self.size, mode="bilinear", align_corners=False)
        return images


def centre_crop(images: Tensor, size: int) -> Tensor:
    """The middle `size` x `size` of `[..., H, W]`; a side shorter than `size` is padded with paper (0)
    instead.

    Example:
        >>> small = centre_crop(torch.zeros(8, 35, 35), 28)  # [8, 28, 28]
    """
    if size < 1:
        raise ValueError(f"size must be at least 1, got {size}")
    height, width = images.shape[-2:]
    top, left = (height - size) // 2, (width - size) // 2
    # Negative padding cuts.
    return F.pad(images, (-left, size - width + left, -top, size - height + top))


def rotations_as_classes(images: ImageSet) -> ImageSet:
    """Four times the classes: every class turned by 0, 90, 180 and 270 degrees, each turn a class of its own.

    Class c turned k times is class `c + k * num_classes`. The four turns of a class share their `exclusive`
    number: they may look alike (the turns of an O), so they must not meet as different classes in one batch.

    Raises:
        ValueError: the images are not square.

    Example:
        >>> more = rotations_as_classes(glyphs("train"))
        >>> sampler = PKSampler(more.labels, p=32, k=4, exclusive=more.exclusive)
    """
    height, width = images.images.shape[-2:]
    if height != width:
        raise ValueError(f"images must be square to be turned, got {height}x{width}")
    turns = range(4)
    return ImageSet(
        images=torch.cat([torch.rot90(images.images, k, (-2, -1)) for k in turns]),
        labels=torch.cat([images.labels + k * images.num_classes for k in turns]),
        classes=tuple(f"{name} turned {90 * k}" if k else name for k in turns for name in images.classes),
        groups=images.groups.repeat(4),
        group_names=images.group_names,
        exclusive=images.exclusive.repeat(4),
    )


def _uniform(shape: tuple[int, ...], generator: torch.Generator, like: Tensor) -> Tensor:
    """Uniform in [-1, 1)."""
    return torch.rand(shape, generator=generator, device=like.device, dtype=like.dtype) * 2 - 1


@lru_cache(maxsize=16)
def _basis(size: int, elastic_grid: int) -> Tensor:
    """The functions (1, x, y, B_i(y) B_j(x)) at each output pixel: `[size * size, 3 + elastic_grid ** 2]`."""
    centres = (torch.arange(size, dtype=torch.float64) * 2 + 1) / size - 1
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    columns = [torch.ones_like(x).flatten(), x.flatten(), y.flatten()]
    if elastic_grid:
        cells = torch.eye(elastic_grid**2, dtype=torch.float64).view(-1, 1, elastic_grid, elastic_grid)
        smooth = F.interpolate(cells, size=(size, size), mode="bicubic", align_corners=True)
        columns += list(smooth.flatten(1))
    return torch.stack(columns, dim=1).to(torch.float32)
