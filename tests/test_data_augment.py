"""Augmentation: what each change does, the crop, reproducibility, and the turned classes."""

from __future__ import annotations

import pytest
import torch

from siamese_fast.data import Augmentation, ImageSet, centre_crop, rotations_as_classes

NOTHING = {"rotation": 0, "scale": 0, "shear": 0, "translation": 0, "elastic": 0, "gain": 0, "blur": 0}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def augmentation(**amounts):
    return Augmentation(**{**NOTHING, **amounts})


@pytest.fixture
def images():
    """Smooth blobs away from the edge."""
    coarse = torch.rand(16, 1, 5, 5, generator=seeded())
    inner = torch.nn.functional.interpolate(coarse, size=(15, 15), mode="bilinear")
    return centre_crop(inner, 35)


@pytest.mark.parametrize("size", [28, 35, 40])
def test_nothing_asked_is_a_centre_crop(images, size):
    even = images if (size - 35) % 2 == 0 else images[..., :34, :34]
    torch.testing.assert_close(
        augmentation(size=size)(even, seeded()), centre_crop(even, size), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("name", ["rotation", "scale", "shear", "translation", "elastic", "gain", "blur"])
def test_each_change_changes_and_keeps_the_range(images, name):
    amount = {"rotation": 20.0, "translation": 3.0}.get(name, 0.3)
    changed = augmentation(size=35, **{name: amount})(images, seeded())
    assert changed.shape == images.shape and changed.dtype == torch.float32
    assert not torch.allclose(changed, images, atol=0.02)
    assert float(changed.min()) >= 0 and float(changed.max()) <= 1


def test_a_function_of_the_generator(images):
    augment = Augmentation(blur=0.5)
    first, again, other = augment(images, seeded(1)), augment(images, seeded(1)), augment(images, seeded(2))
    assert first.equal(again) and not first.equal(other)
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    augment(images, seeded(1))
    assert torch.rand(2).equal(expected), "the global generator is left alone"


def test_the_input_is_not_changed(images):
    before = images.clone()
    augmentation(size=35, gain=0.9, blur=1.0)(images, seeded())
    assert images.equal(before)


def test_translation_in_pixels():
    dot = torch.zeros(64, 1, 35, 35)
    dot[:, :, 17, 17] = 1
    moved = augmentation(size=35, translation=4.0)(dot, seeded())
    place = torch.arange(35.0) - 17
    across = (moved.sum(dim=(1, 2)) @ place) / moved.sum(dim=(1, 2, 3))
    assert 3 < float(across.abs().max()) <= 4.01
    assert abs(float(across.mean())) < 1


def test_rotation_is_rigid_whatever_the_sizes():
    """A bar keeps its length when turned, also where output and input differ in size."""
    bar = torch.zeros(32, 1, 35, 35)
    bar[:, :, 16:19, 8:27] = 1
    turned = augmentation(size=29, rotation=90.0)(bar, seeded())
    torch.testing.assert_close(turned.sum(dim=(1, 2, 3)), bar.sum(dim=(1, 2, 3)), rtol=0.03, atol=0)


def test_blur_takes_the_share_asked(images):
    many = images.repeat(64, 1, 1, 1)
    changed = augmentation(size=35, blur=0.25)(many, seeded())
    share = (changed - many).abs().flatten(1).amax(dim=1).gt(0.01).float().mean()
    assert 0.2 < float(share) < 0.3


def test_gain_scales_the_ink(images):
    changed = augmentation(size=35, gain=0.4)(images, seeded())
    factor = changed.sum(dim=(1, 2, 3)) / images.sum(dim=(1, 2, 3))
    assert 0.59 < float(factor.min()) < 0.8 and 1.0 < float(factor.max()) < 1.41


@pytest.mark.parametrize("shape", [(0, 1, 28, 28), (1, 3, 20, 31)])
def test_any_number_of_images_and_channels(shape):
    out = Augmentation(size=24, blur=0.5)(torch.rand(shape), seeded())
    assert out.shape == (shape[0], shape[1], 24, 24)


@pytest.mark.parametrize("size", [1, 4, 5, 8])
def test_centre_crop(size):
    image = torch.arange(25).view(1, 5, 5)
    cropped = centre_crop(image, size)
    assert cropped.shape == (1, size, size)
    if size == 1:
        assert cropped.item() == 12
    if size > 5:
        assert int(cropped.sum()) == int(image.sum())


def test_rotations_as_classes():
    pictures = torch.randint(0, 256, (6, 9, 9), dtype=torch.uint8, generator=seeded())
    letters = ImageSet(
        pictures, torch.tensor([0, 0, 1, 1, 2, 2]), ("a", "b", "c"), torch.tensor([0, 1, 0]), ("x", "y")
    )
    more = rotations_as_classes(letters)
    assert len(more) == 24 and more.num_classes == 12
    assert more.classes[:4] == ("a", "b", "c", "a turned 90")
    assert more.images[6:12].equal(torch.rot90(pictures, 1, (1, 2)))
    assert more.labels[18:].equal(letters.labels + 9)
    assert more.exclusive.tolist() == [0, 1, 2] * 4
    assert more.groups.tolist() == [0, 1, 0] * 4
    twice = rotations_as_classes(more)
    assert twice.exclusive.tolist() == [0, 1, 2] * 16


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rotation": -1}, "rotation must be 0 or more, got -1"),
        ({"scale": 1.0}, "scale must be below 1"),
        ({"gain": 1.5}, "gain must be at most 1"),
        ({"blur": float("nan")}, "blur must be 0 or more"),
        ({"size": 0}, "size must be at least 1"),
        ({"elastic_grid": 1}, "elastic_grid at least 2"),
        ({"blur_sizes": (14, 10)}, "blur_sizes"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**options)


def test_images_that_do_not_fit():
    with pytest.raises(ValueError, match=r"floating point \[N, C, H, W\]"):
        Augmentation()(torch.zeros(2, 1, 28, 28, dtype=torch.uint8), seeded())
    with pytest.raises(ValueError, match="floating point"):
        Augmentation()(torch.zeros(2, 28, 28), seeded())
    with pytest.raises(ValueError, match="square"):
        rotations_as_classes(ImageSet(torch.zeros(1, 4, 5, dtype=torch.uint8), torch.tensor([0]), ("a",)))
    with pytest.raises(ValueError, match="size must be at least 1"):
        centre_crop(torch.zeros(3, 3), 0)
