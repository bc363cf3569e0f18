"""Loaders: ImageSet itself, scikit-learn's digits, folders, CSV files and arrays."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from siamese_fast import data
from siamese_fast.data import ImageSet
from siamese_fast.data.folders import image_files, read_images


def picture(seed, size=(20, 16), mode="L"):
    """Dark strokes on white paper."""
    image = Image.new(mode, size, "white")
    pen = ImageDraw.Draw(image)
    pen.line((4, 3 + seed % 3, size[0] - 6, size[1] - 5), fill="black", width=2)
    return image


@pytest.fixture
def folder(tmp_path):
    for name in ("b", "a"):
        for i in range(3):
            path = tmp_path / name / "deeper" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(i).save(path)
    (tmp_path / "a" / ".hidden.png").write_bytes(b"not read")
    (tmp_path / "a" / "notes.txt").write_text("not read")
    (tmp_path / ".git").mkdir()
    return tmp_path


def test_imageset_tensor_and_subset():
    pixels = torch.randint(0, 256, (6, 4, 5), dtype=torch.uint8)
    full = ImageSet(
        pixels, torch.tensor([0, 1, 2, 0, 1, 2]), ("a", "b", "c"), torch.tensor([0, 0, 1]), ("x", "y")
    )
    assert len(full) == 6 and full.num_classes == 3 and full.counts().tolist() == [2, 2, 2]
    batch = full.tensor([5, 0])
    assert batch.shape == (2, 1, 4, 5) and batch.dtype == torch.float32
    torch.testing.assert_close(batch[0, 0], pixels[5] / 255)
    assert full.tensor().shape == (6, 1, 4, 5)
    part = full.subset([2, 0])
    assert part.classes == ("c", "a") and part.labels.tolist() == [1, 0, 1, 0]
    assert part.images.equal(pixels[[0, 2, 3, 5]]) and part.groups.tolist() == [1, 0]
    assert part.exclusive.tolist() == [2, 0]
    assert full.subset([]).images.shape == (0, 4, 5)
    assert ImageSet(torch.zeros(1, 3, 4, 5, dtype=torch.uint8), torch.tensor([0]), ("a",)).tensor().shape == (
        1,
        3,
        4,
        5,
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.zeros(2, 4, 4)}, "images must be uint8"),
        ({"images": torch.zeros(2, 4, dtype=torch.uint8)}, "images must be uint8"),
        ({"labels": torch.tensor([0])}, r"labels must be int64 of shape \[2\]"),
        ({"labels": torch.tensor([0.0, 1.0])}, "labels must be int64"),
        ({"labels": torch.tensor([0, 2])}, r"labels must lie in 0 \.\. 1"),
        ({"groups": torch.tensor([0])}, r"groups must be int64 of shape \[2\]"),
        ({"groups": torch.tensor([0, 1])}, r"groups must lie in 0 \.\. 0"),
        ({"exclusive": torch.tensor([0.0, 1.0])}, "exclusive must be int64"),
    ],
)
def test_imageset_errors(change, message):
    good = {
        "images": torch.zeros(2, 4, 4, dtype=torch.uint8),
        "labels": torch.tensor([0, 1]),
        "classes": ("a", "b"),
    }
    with pytest.raises(ValueError, match=message):
        ImageSet(**{**good, **change})


@pytest.mark.parametrize("wanted", [[3], [-1], [0, 0]])
def test_subset_errors(wanted):
    full = ImageSet(torch.zeros(3, 4, 4, dtype=torch.uint8), torch.arange(3), ("a", "b", "c"))
    with pytest.raises(ValueError, match="class_indices"):
        full.subset(wanted)


def test_digits():
    found = data.digits()
    assert found.images.shape == (1797, 28, 28) and found.classes == tuple("0123456789")
    assert int(found.counts().min()) > 170
    inside = data.centre_crop(data.centre_crop(found.images, 20), 28)
    assert inside.equal(found.images), "drawn 20 pixels high in the middle of 28"
    assert int(found.images.flatten(1).amax(dim=1).min()) > 150
    small = torch.nn.functional.adaptive_avg_pool2d(found.tensor()[:, :, 4:24, 4:24], 8)
    from sklearn.datasets import load_digits

    original = torch.from_numpy(load_digits().images).float() / 16
    assert float((small.squeeze(1) - original).abs().mean()) < 0.08, "upright, and the right way round"
    assert data.digits(size=35, drawn=35).images.shape == (1797, 35, 35)
    with pytest.raises(ValueError, match=r"drawn must lie in 1 \.\. size = 28, got 29"):
        data.digits(28, 29)


def test_image_folder(folder):
    found = data.image_folder(folder)
    assert found.classes == ("a", "b") and found.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert found.images.shape == (6, 16, 20)
    expected = 255 - np.asarray(picture(1))
    assert np.array_equal(found.images[1].numpy(), expected), "dark on white is inverted"
    assert np.array_equal(data.image_folder(folder, ink="bright").images[1].numpy(), 255 - expected)
    assert data.image_folder(folder, color=True).images.shape == (6, 3, 16, 20)
    assert int(data.image_folder(folder, color=True).images[0, 0, 0, 0]) == 255, "colour is never inverted"


def test_fitted_to_a_size(folder):
    found = data.image_folder(folder, size=28)
    assert found.images.shape == (6, 28, 28)
    drawn = data.image_folder(folder, size=28, drawn=20).images > 63
    for image in drawn:
        rows, columns = image.any(dim=1).nonzero().squeeze(1), image.any(dim=0).nonzero().squeeze(1)
        extents = [int(places[-1] - places[0]) + 1 for places in (rows, columns)]
        assert 18 <= max(extents) <= 20
        assert all(abs(int(places[0] + places[-1]) - 27) <= 2 for places in (rows, columns))


def test_a_blank_page_is_blank(tmp_path):
    Image.new("L", (30, 40), "white").save(tmp_path / "blank.png")
    assert int(read_images([tmp_path / "blank.png"], 28, drawn=20).sum()) == 0


def test_transparent_is_paper(tmp_path):
    image = Image.new("RGBA", (20, 16), (0, 0, 0, 0))
    ImageDraw.Draw(image).line((4, 4, 12, 12), fill=(0, 0, 0, 255), width=2)
    image.save(tmp_path / "clear.png")
    pixels = read_images([tmp_path / "clear.png"])[0]
    assert int(pixels[0, 0]) == 0 and int(pixels.max()) == 255


def test_bright_ink_stays(tmp_path):
    picture(0).point(lambda value: 255 - value).save(tmp_path / "board.png")
    assert np.array_equal(read_images([tmp_path / "board.png"])[0].numpy(), 255 - np.asarray(picture(0)))


@pytest.mark.parametrize("suffix", ["jpg", "bmp", "gif", "webp", "tif", "PNG"])
def test_formats(tmp_path, suffix):
    picture(0).save(tmp_path / f"one.{suffix}")
    assert [file.name for file in image_files(tmp_path)] == [f"one.{suffix}"]
    assert int(read_images(image_files(tmp_path)).max()) > 200


def test_folder_errors(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="root must be a folder"):
        data.image_folder(tmp_path / "none")
    with pytest.raises(ValueError, match="no class folder"):
        data.image_folder(folder / "a" / "deeper")
    (folder / "c").mkdir()
    with pytest.raises(ValueError, match="c holds no image"):
        data.image_folder(folder)
    (folder / "c" / "broken.png").write_bytes(b"\x89PNG but no more")
    with pytest.raises(ValueError, match=r"broken\.png is not a readable image"):
        data.image_folder(folder)
    picture(0, size=(30, 16)).save(folder / "c" / "broken.png")
    with pytest.raises(ValueError, match=r"broken\.png is 30x16, .*0\.png is 20x16.*need size="):
        data.image_folder(folder)
    assert data.image_folder(folder, size=28).num_classes == 3


@pytest.mark.parametrize(
    "options",
    [{"drawn": 20}, {"size": 28, "drawn": 29}, {"size": 28, "drawn": 20, "color": True}, {"ink": "blue"}],
)
def test_options_that_do_not_go_together(folder, options):
    with pytest.raises(ValueError, match=r"drawn must lie in|drawn is for grey|ink must be"):
        data.image_folder(folder, **options)


def test_cut_short_image_is_named(folder):
    path = folder / "a" / "deeper" / "0.png"
    picture(0, size=(200, 200)).save(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"0\.png is not a readable image"):
        data.image_folder(folder, size=28)


def test_image_csv(folder):
    listing = folder / "list.csv"
    listing.write_text("label,path,note\nxi,b/deeper/0.png,1\nalpha,a/deeper/1.png,2\nxi,b/deeper/2.png,3\n")
    found = data.image_csv(listing)
    assert found.classes == ("alpha", "xi") and found.labels.tolist() == [1, 0, 1]
    assert found.images[1].equal(data.image_folder(folder).images[1])
    listing.write_text("path,label\n")
    with pytest.raises(ValueError, match="lists no images"):
        data.image_csv(listing)
    listing.write_text("file,class\na,b\n")
    with pytest.raises(ValueError, match="path and label"):
        data.image_csv(listing)
    listing.write_text("path,label\nnone.png,a\n")
    with pytest.raises(FileNotFoundError, match=r"none\.png"):
        data.image_csv(listing)
    listing.write_text("path,label\na/deeper/0.png\n")
    with pytest.raises(ValueError, match=r"line 2 .* has no label"):
        data.image_csv(listing)


def test_from_arrays():
    pixels = np.arange(4 * 6, dtype=np.uint8).reshape(4, 2, 3)
    found = data.from_arrays(pixels, ["y", "x", "y", "z"])
    assert found.classes == ("x", "y", "z") and found.labels.tolist() == [1, 0, 1, 2]
    assert np.array_equal(found.images.numpy(), pixels)
    assert data.from_arrays(torch.ones(2, 3, 3), torch.tensor([5, 3])).images.unique().tolist() == [255]
    assert data.from_arrays(np.ones((2, 3, 3), bool), [0, 1]).images.unique().tolist() == [255]
    named = data.from_arrays(pixels, np.array([0, 2, 0, 2]), classes=("a", "b", "c"))
    assert named.classes == ("a", "b", "c") and named.labels.tolist() == [0, 2, 0, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((2, 3, 3)), [0]), r"labels must be of shape \[2\]"),
        ((np.full((2, 3, 3), 255.0), [0, 1]), r"lie in \[0, 1\]"),
        ((np.full((2, 3, 3), np.nan), [0, 1]), "NaN"),
        ((np.zeros((2, 3, 3), np.int32), [0, 1]), "got torch.int32"),
        ((np.zeros((2, 3)), [0, 1]), "images must be uint8 of shape"),
        ((np.zeros((2, 3, 3)), ["a", "b"], ("a", "b")), "labels must be integers"),
        ((np.zeros((2, 3, 3)), [0, 5], ("a", "b")), "labels must lie in"),
    ],
)
def test_array_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        data.from_arrays(*arguments)
