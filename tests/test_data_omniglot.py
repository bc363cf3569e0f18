"""Omniglot: the archives' layout, drawings made small, the official runs, and fetching with a checksum."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from siamese_fast import data
from siamese_fast.data import _download
from siamese_fast.models import inputs_of
from siamese_fast.recipes import RECIPES, one_shot_validation, train_recipe

REAL = Path(
    os.environ.get("SIAMESE_FAST_OMNIGLOT", Path(__file__).parents[2] / "shared" / "data" / "omniglot")
)
needs_real = pytest.mark.skipif(
    not (REAL / "images_background_small1.zip").is_file() or not (REAL / "all_runs.zip").is_file(),
    reason="images_background_small1.zip and all_runs.zip are needed in the folder SIAMESE_FAST_OMNIGLOT",
)


def drawing(row):
    """A 105x105 page with one stroke, two pixels high, `row` from above: as PNG bytes, one bit a pixel."""
    page = np.full((105, 105), 255, np.uint8)
    page[row : row + 2, 20:85] = 0
    file = io.BytesIO()
    Image.fromarray(page).convert("1").save(file, "PNG")
    return file.getvalue()


def write(root, files, zipped):
    if zipped:
        with zipfile.ZipFile(f"{root}.zip", "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return
    for name, content in files.items():
        path = root.parent / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def background(folder, name="images_background", zipped=True):
    files = {
        f"{name}/{alphabet}/character{c:02}/{c:04}_{d:02}.png": drawing(10 * c + d)
        for alphabet in ("Runic", "Greek")
        for c in (1, 2, 3)
        for d in (1, 2)
    }
    files[f"{name}/Greek/character01/._0001_01.png"] = b"left by an archiver"
    write(folder / name, files, zipped)


def runs(folder, count=3, zipped=True, top=""):
    files = {}
    for run in range(1, count + 1):
        lines = []
        for i in range(1, 5):
            answer = (i + run) % 4 + 1
            files[f"{top}run{run:02}/training/class{i:02}.png"] = drawing(20 * i)
            files[f"{top}run{run:02}/test/item{i:02}.png"] = drawing(20 * answer)
            lines.append(f"run{run:02}/test/item{i:02}.png run{run:02}/training/class{answer:02}.png")
        files[f"{top}run{run:02}/class_labels.txt"] = ("\n".join(lines) + "\n").encode()
    write(folder / "all_runs", files, zipped)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "folder"])
def test_background(tmp_path, zipped):
    background(tmp_path, zipped=zipped)
    found = data.omniglot(tmp_path)
    assert found.images.shape == (12, 28, 28) and found.group_names == ("Greek", "Runic")
    assert found.classes[0] == "Greek/character01" and found.num_classes == 6
    assert found.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5] and found.groups.tolist() == [
        0,
        0,
        0,
        1,
        1,
        1,
    ]
    itself = tmp_path / ("images_background.zip" if zipped else "images_background")
    assert data.omniglot(itself).images.equal(found.images)


def test_drawings_are_ink_on_paper_and_strokes_survive(tmp_path):
    background(tmp_path)
    page = data.omniglot(tmp_path).images[2].float() / 255  # a stroke at rows 21 and 22 of 105
    assert float(page[:5].sum()) == 0 and float(page[7:].sum()) == 0
    assert float(page.max()) > 0.7, "a stroke of two pixels, a half of a pixel here, keeps most of its ink"
    assert float(page[:, :4].sum()) == 0 and float(page[:, 24:].sum()) == 0
    full = data.omniglot(tmp_path, size=105).images[2]
    assert int(full[21:23, 20:85].min()) == 255 and int(full.count_nonzero()) == 130
    fitted = data.omniglot(tmp_path, drawn=20).images[2]
    assert int(fitted[:, 4:24].count_nonzero()) == int(fitted.count_nonzero()) == 20
    assert data.omniglot(tmp_path, size=120).images.shape[1:] == (120, 120)


def test_archives_by_name(tmp_path):
    background(tmp_path, "images_background_small1")
    background(tmp_path, "images_background_small2", zipped=False)
    background(tmp_path, "images_evaluation")
    assert data.omniglot(tmp_path).num_classes == 6, (
        "the same alphabets in both small sets are the same classes"
    )
    assert len(data.omniglot(tmp_path)) == 24
    assert len(data.omniglot(tmp_path, "images_evaluation")) == 12
    assert len(data.omniglot(tmp_path, ["images_evaluation", "images_background_small1"])) == 24
    background(tmp_path, "images_background")
    assert len(data.omniglot(tmp_path)) == 12, "the full set comes before the small ones"


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "folder"])
@pytest.mark.parametrize("count", [1, 3])
def test_runs(tmp_path, zipped, count):
    runs(tmp_path, count, zipped, top="" if zipped else "all_runs/")
    found = data.omniglot_runs(tmp_path)
    assert [run.name for run in found] == [f"run{i:02}" for i in range(1, count + 1)]
    for number, run in enumerate(found, start=1):
        assert run.support.shape == run.query.shape == (4, 1, 28, 28) and run.support.dtype == torch.float32
        assert run.answer.tolist() == [(i + number) % 4 for i in range(1, 5)]
        assert run.query.equal(run.support[run.answer])
    itself = tmp_path / ("all_runs.zip" if zipped else "all_runs")
    assert len(data.omniglot_runs(itself)) == count


def test_missing_archives_say_where_they_are(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"neither images_background\.zip nor .*fetch=True"):
        data.omniglot(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"neither mine\.zip nor mine/$"):
        data.omniglot(tmp_path, "mine")
    with pytest.raises(FileNotFoundError, match=r"neither all_runs\.zip nor .*github"):
        data.omniglot_runs(tmp_path)


def test_archives_with_something_else(tmp_path):
    write(tmp_path / "images_background", {"readme.txt": b"empty"}, True)
    with pytest.raises(ValueError, match="holds no ALPHABET"):
        data.omniglot(tmp_path)
    write(tmp_path / "all_runs", {"readme.txt": b"empty"}, True)
    with pytest.raises(ValueError, match="holds no runNN"):
        data.omniglot_runs(tmp_path)
    write(tmp_path / "images_background", {"a/b/character01/1.png": b"no image"}, True)
    with pytest.raises(ValueError, match=r"1\.png in .* is not a readable image"):
        data.omniglot(tmp_path)
    write(
        tmp_path / "all_runs",
        {"run01/class_labels.txt": b"run01/test/item01.png run01/training/class01.png"},
        True,
    )
    with pytest.raises(ValueError, match=r"names run01/test/item01\.png, which is not there"):
        data.omniglot_runs(tmp_path)
    write(tmp_path / "all_runs", {"run01/class_labels.txt": b"\n"}, True)
    with pytest.raises(ValueError, match="names no images"):
        data.omniglot_runs(tmp_path)


def test_arguments(tmp_path):
    background(tmp_path)
    with pytest.raises(ValueError, match="size must be at least 1"):
        data.omniglot(tmp_path, size=0)
    with pytest.raises(ValueError, match="drawn must lie in"):
        data.omniglot(tmp_path, drawn=29)
    with pytest.raises(ValueError, match="names must be None"):
        data.omniglot(tmp_path / "images_background.zip", "images_evaluation")


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A local stand-in for the official repository."""
    source = tmp_path / "mirror"
    source.mkdir()
    background(source, "images_evaluation")
    content = (source / "images_evaluation.zip").read_bytes()
    monkeypatch.setitem(_download.SHA256, "images_evaluation", hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(_download, "FOLDER", source.as_uri())
    return tmp_path / "kept"


def test_fetched_and_checked(mirror):
    assert len(data.omniglot(mirror, "images_evaluation", fetch=True)) == 12
    assert [path.name for path in mirror.iterdir()] == ["images_evaluation.zip"]


def test_a_wrong_checksum_is_not_kept(mirror, monkeypatch):
    monkeypatch.setitem(_download.SHA256, "images_evaluation", "0" * 64)
    with pytest.raises(ValueError, match=r"has SHA-256 .*, expected 0000"):
        data.omniglot(mirror, "images_evaluation", fetch=True)
    assert not list(mirror.iterdir())


def test_no_network(mirror):
    with pytest.raises(ConnectionError, match=r"could not be fetched .*put images_background\.zip into"):
        data.omniglot(mirror, "images_background", fetch=True)
    with pytest.raises(ValueError, match="known checksums"):
        data.omniglot(mirror, "all_runs", fetch=True)
    assert not list(mirror.iterdir())


@pytest.mark.filterwarnings("ignore:the network is not calibrated")
@pytest.mark.parametrize(("drawn", "accuracy"), [(None, 1.0), (20, 0.25)])
def test_a_recipe_reads_drawings_as_it_says(tmp_path, drawn, accuracy):
    """The strokes differ in their place on the page alone: cut to their ink they are all the same."""
    background(tmp_path)
    runs(tmp_path)
    recipe = RECIPES["omniglot-triplets"]
    options = replace(recipe.options, steps=2, progress=False)
    recipe = replace(recipe, options=options, channels=(4, 4), p=2, k=2, drawn=drawn)
    trained = train_recipe(recipe, root=tmp_path, validate=one_shot_validation(recipe, tmp_path))
    assert trained.history.last("accuracy") == pytest.approx(accuracy)
    assert inputs_of(recipe).drawn == drawn


@needs_real
def test_real_archives():
    found = data.omniglot(REAL, "images_background_small1")
    assert len(found) == 2720 and found.num_classes == 136 and set(found.counts().tolist()) == {20}
    assert found.group_names == ("Balinese", "Early_Aramaic", "Greek", "Korean", "Latin")
    assert found.groups.bincount().tolist() == [24, 22, 24, 40, 26]


@needs_real
def test_real_runs():
    found = data.omniglot_runs(REAL)
    assert len(found) >= 10
    wrong = 0.0
    for run in found:
        assert run.support.shape == run.query.shape == (20, 1, 28, 28)
        assert sorted(run.answer.tolist()) == list(range(20))
        distance = torch.cdist(run.query.flatten(1), run.support.flatten(1))
        wrong += float((distance.argmin(dim=1) != run.answer).float().mean()) / len(found)
    assert 0.6 < wrong < 0.85, "nearest pixels are a poor reader: 78 % wrong is published"
