"""Glyphs: which characters are drawn, how they are thinned and drawn again, look-alikes, the cache."""

from __future__ import annotations

import importlib
import unicodedata

import numpy as np
import pytest

from siamese_fast import data
from siamese_fast.data import _characters, _pen
from siamese_fast.data._cache import cache_dir

# The package's attribute of that name is the function.
glyphs_module = importlib.import_module("siamese_fast.data.glyphs")
FONT_HEIGHT = 96


@pytest.fixture(scope="module")
def sans():
    return _characters.open_fonts(FONT_HEIGHT)["DejaVuSans"]


def trace(font, character, drawn=20.0):
    path = _pen.trace(font, character, drawn)
    assert path is not None
    return path


@pytest.mark.parametrize("character", list("09²①½Ⅷ٣৩⓪𝟘ƻℂ𝔸ªﬁ+♞"))
def test_digits_and_other_forms_are_not_letters(character):
    assert not _characters.is_letter(character)


@pytest.mark.parametrize("character", list("AßЖωᐁﻍéא"))
def test_letters_are_letters(character):
    assert _characters.is_letter(character)


def test_no_character_is_or_contains_a_number():
    for glyph in _characters.characters():
        parts = glyph.character + unicodedata.normalize("NFKD", glyph.character)
        assert all(unicodedata.numeric(part, None) is None for part in parts)
        assert "DIGIT" not in unicodedata.name(glyph.character)


def test_only_faces_that_have_the_character_are_listed():
    found = {glyph.character: glyph.faces for glyph in _characters.characters()}
    assert {"DejaVuSans", "STIXGeneral", "cmr10", "cmmi10"} <= set(found["A"])
    assert set(found["ⴰ"]) == {"DejaVuSans", "DejaVuSans-Bold"}
    assert not any(face.startswith("cm") for face in found["Γ"]), "Computer Modern has no Unicode Greek"
    assert not any("LastResort" in face for faces in found.values() for face in faces)


def test_held_out_alphabets():
    scripts = {glyph.script for glyph in _characters.characters() if glyph.held_out}
    assert scripts == {"Armenian", "Georgian", "Hebrew", "Tifinagh", "N'Ko", "Lao"}


def test_a_path_is_thin_and_as_long_as_asked(sans):
    path = trace(sans, "L", drawn=20.0)
    assert 50 <= max(path.shape) <= 64
    ink = path.astype(int)
    blocks = ink[:-1, :-1] + ink[1:, :-1] + ink[:-1, 1:] + ink[1:, 1:]
    assert blocks.max() <= 3, "a skeleton has no 2x2 block"


def test_a_dot_and_a_blank_have_no_path(sans):
    assert _pen.trace(sans, ".", 20.0) is None
    assert _pen.trace(sans, " ", 20.0) is None


def test_drawn_upright_centred_and_with_the_pen_asked_for(sans):
    thin, thick = _pen.draw(trace(sans, "L"), 35, (1.4, 3.2))
    assert thin.shape == (35, 35) and thin.dtype == np.uint8
    assert thick.max() == 255 and thick.sum() / thin.sum() == pytest.approx(3.2 / 1.4, rel=0.15)
    rows, columns = (thin > 0).any(axis=1).nonzero()[0], (thin > 0).any(axis=0).nonzero()[0]
    assert abs(rows[0] + rows[-1] - 34) <= 1 and abs(columns[0] + columns[-1] - 34) <= 1
    assert thin[-14:].sum() > thin[:14].sum(), "the foot of an L is below"
    assert thin[:, :17].sum() > thin[:, 18:].sum(), "its stem is on the left"


def test_a_path_too_large_for_the_image(sans):
    with pytest.raises(ValueError, match="does not fit"):
        _pen.draw(trace(sans, "L", drawn=40.0), 35, (2.0,))


def kept(font, characters, turned):
    paths = [trace(font, character) for character in characters]
    found = _pen.distinct(paths, [turned] * len(paths), 20.0, farthest=3.0, mean=0.6)
    return "".join(characters[i] for i in found)


def test_look_alikes_are_kept_once(sans):
    assert kept(sans, "AΑАOoОsSQ", turned=False) == "AOsQ", "Latin, Greek and Cyrillic twins"
    assert kept(sans, "bqdpnuZNM", turned=False) == "bqdpnuZNM"
    assert kept(sans, "bqdpnuZNM", turned=True) == "bdnZNM"


def test_only_the_later_one_is_turned(sans):
    paths = [trace(sans, character) for character in "bq"]
    assert _pen.distinct(paths, [True, False], 20.0, 3.0, 0.6) == [0, 1]
    assert _pen.distinct(paths, [False, True], 20.0, 3.0, 0.6) == [0]


FEW = "ABCDEFGHאבגդեⴰ"


@pytest.fixture
def few(monkeypatch, tmp_path):
    """Only a handful of characters, and an empty cache."""
    found = [glyph for glyph in _characters.characters() if glyph.character in FEW]
    monkeypatch.setattr(glyphs_module, "characters", lambda: found)
    monkeypatch.setenv("SIAMESE_FAST_CACHE", str(tmp_path))
    return tmp_path


def test_splits_sizes_and_groups(few):
    train, test = data.glyphs("train"), data.glyphs("test")
    assert train.images.shape[1:] == (35, 35) and test.images.shape[1:] == (28, 28)
    assert set(train.classes) == set("ABCDEFGH") and set(test.classes) == set("אבגդեⴰ")
    assert train.group_names == ("Latin",) and set(test.group_names) == {"Armenian", "Hebrew", "Tifinagh"}
    assert int(train.counts().min()) == 3 * 22, "each of 22 faces with three pens"
    by_class = dict(zip(test.classes, test.counts().tolist(), strict=True))
    assert by_class["ⴰ"] == 2 and by_class["א"] == 4
    assert data.glyphs("train", size=28).images.equal(data.centre_crop(train.images, 28))


def ink_lost_by_crop(split, size=28):
    whole = data.glyphs(split, size=35).images.flatten(1).float().sum(dim=1)
    return 1 - data.glyphs(split, size=size).images.flatten(1).float().sum(dim=1) / whole


def test_nothing_is_clipped(few):
    assert float(ink_lost_by_crop("train").max()) == 0
    assert float(ink_lost_by_crop("test").max()) < 0.03


def test_test_glyphs_come_from_different_hands(few):
    images = data.glyphs("test").images
    assert len(images.flatten(1).unique(dim=0)) == len(images)


def test_the_cache_gives_back_what_was_drawn(few):
    drawn = data.glyphs("train")
    (file,) = few.iterdir()
    stamp = file.stat().st_mtime_ns
    read = data.glyphs("train")
    assert file.stat().st_mtime_ns == stamp and list(few.iterdir()) == [file]
    for name in ("images", "labels", "groups", "exclusive"):
        assert getattr(drawn, name).equal(getattr(read, name))
    assert (drawn.classes, drawn.group_names) == (read.classes, read.group_names)
    data.glyphs("train", recipe=data.GlyphRecipe(pens=(2.0,)))
    assert len(list(few.iterdir())) == 2, "another recipe is another file"


def test_without_the_cache_nothing_is_written(few):
    data.glyphs("test", cache=False)
    assert not list(few.iterdir())


def test_errors():
    with pytest.raises(ValueError, match="split must be 'train' or 'test', got 'valid'"):
        data.glyphs("valid")
    with pytest.raises(ValueError, match=r"size must lie in 1 \.\. 35"):
        data.glyphs("train", size=36)


def test_cache_dir(monkeypatch, tmp_path):
    monkeypatch.setenv("SIAMESE_FAST_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "own"
    monkeypatch.delenv("SIAMESE_FAST_CACHE")
    assert cache_dir() == tmp_path / "xdg" / "siamese_fast"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_dir() == tmp_path / "home" / ".cache" / "siamese_fast"


def test_the_whole_set():
    """Drawn once (about 20 seconds) where there is no cache yet."""
    train, test = data.glyphs("train"), data.glyphs("test")
    assert 1000 <= train.num_classes <= 1200
    assert 250 <= test.num_classes <= 345
    assert int(train.counts().min()) >= 6 and int(test.counts().min()) >= 2
    assert not set(train.classes) & set(test.classes)
    assert not set(train.group_names) & set(test.group_names)
    for images in (train.images, test.images):
        assert int(images.flatten(1).amax(dim=1).min()) > 0, "no blank"
    assert float(ink_lost_by_crop("train").max()) == 0
    assert float(ink_lost_by_crop("test").max()) < 0.03
