"""Which characters are drawn, and by which of matplotlib's fonts."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from siamese_fast._extras import require

# The upright sans face comes first: where it has two characters, they are compared as it draws them.
_UNICODE_FACES = (
    *("DejaVuSans", "DejaVuSerif", "DejaVuSansMono"),
    *("DejaVuSans-Oblique", "DejaVuSerif-Italic", "DejaVuSansMono-Oblique"),
    *("DejaVuSans-Bold", "DejaVuSerif-Bold", "DejaVuSansMono-Bold"),
    *("DejaVuSans-BoldOblique", "DejaVuSerif-BoldItalic", "DejaVuSansMono-BoldOblique"),
    *("STIXGeneral", "STIXGeneralItalic", "STIXGeneralBol", "STIXGeneralBolIta"),
)
# Computer Modern has an order of its own at the code points of Latin-1: only its basic letters are right.
_TEX_FACES = ("cmr10", "cmss10", "cmtt10", "cmti10", "cmmi10", "cmb10")
# Left out: the symbol, size-variant and private-use fonts (cmsy10, cmex10, STIXSiz*, STIXNonUni*,
# DejaVu*Display), and LastResortHE, which claims every code point.

_SCRIPT_NAMES = {"CANADIAN": "Canadian Aboriginal", "NKO": "N'Ko", "OLD": "Old Italic", "TURNED": "Latin"}
_HELD_OUT = frozenset({"Armenian", "Georgian", "Hebrew", "Tifinagh", "N'Ko", "Lao"})
_LETTERS = frozenset({"Lu", "Ll", "Lo"})
# Compatibility forms that are drawn differently, unlike the bold, raised or wide twins of a letter.
_OWN_FORMS = frozenset({"<initial>", "<medial>", "<final>", "<isolated>"})
_NUMBER_WORDS = re.compile(
    r"\b(DIGIT|NUMBER|NUMERAL|TONE|TRESILLO|CUATRILLO)\b"
    r"|\bLETTER (ZERO|ONE|TWO|THREE|FOUR|FIVE|SIX|SEVEN|EIGHT|NINE)\b"
)


@dataclass(frozen=True)
class Glyph:
    """A character, the alphabet it belongs to, and the faces that have it."""

    character: str
    script: str
    faces: tuple[str, ...]

    @property
    def held_out(self) -> bool:
        return self.script in _HELD_OUT

    @property
    def plain(self) -> bool:
        """Whether the letter is not composed of others in Unicode's eyes."""
        return not unicodedata.decomposition(self.character)


def font_paths() -> dict[str, Path]:
    """The font files used, by the name of the face."""
    matplotlib = require("matplotlib", extra="data")
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    paths = {face: folder / f"{face}.ttf" for face in (*_UNICODE_FACES, *_TEX_FACES)}
    found = {face: path for face, path in paths.items() if path.is_file()}
    if _UNICODE_FACES[0] not in found:
        raise FileNotFoundError(f"matplotlib's font {_UNICODE_FACES[0]}.ttf is not in {folder}")
    return found


def open_fonts(height: int = 96) -> dict[str, Any]:
    """Pillow fonts by the name of the face."""
    image_font = require("PIL.ImageFont", extra="data")
    return {face: image_font.truetype(path, height) for face, path in font_paths().items()}


def characters() -> list[Glyph]:
    """Every letter that at least two faces have. Earlier ones are preferred to later ones that look alike.

    Held-out alphabets come first, then letters that stand by themselves, then letters with marks and Arabic's
    contextual forms (of other alphabets only: a held-out alphabet is its plain letters).
    """
    faces_of: dict[str, list[str]] = {}
    tt_font = require("fontTools.ttLib", extra="data").TTFont
    for face, path in font_paths().items():
        with tt_font(path, lazy=True) as font:
            covered = font.getBestCmap()
        for character in map(chr, sorted(covered)):
            if face not in _TEX_FACES or (character.isascii() and character.isalpha()):
                faces_of.setdefault(character, []).append(face)
    found = [
        Glyph(character, script_of(character), tuple(faces))
        for character, faces in faces_of.items()
        if len(faces) >= 2 and is_letter(character)
    ]
    return sorted((glyph for glyph in found if glyph.plain or not glyph.held_out), key=_preference)


def is_letter(character: str) -> bool:
    """Whether this is a letter in a form of its own that neither is nor contains a digit or a number."""
    if unicodedata.category(character) not in _LETTERS:
        return False
    tag = unicodedata.decomposition(character).partition(" ")[0]
    if tag.startswith("<") and tag not in _OWN_FORMS:
        return False
    parts = character + unicodedata.normalize("NFKD", character)
    return not any(map(_is_number, parts)) and not _NUMBER_WORDS.search(unicodedata.name(character, ""))


def _is_number(character: str) -> bool:
    return unicodedata.numeric(character, None) is not None


def _preference(glyph: Glyph) -> tuple[bool, bool, bool, str, str]:
    return (not glyph.held_out, not glyph.plain, glyph.script != "Latin", glyph.script, glyph.character)


def script_of(character: str) -> str:
    """The alphabet, from the first word of the character's Unicode name."""
    word = unicodedata.name(character).split()[0]
    return _SCRIPT_NAMES.get(word, word.capitalize())
