"""Words in figures: how broad they are, and where their lines break."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.textpath import TextToPath

FAMILY = "DejaVu Sans"  # the face that comes with matplotlib


@dataclass(frozen=True)
class Lettering:
    """Letters of a size in points."""

    size: float

    @property
    def line(self) -> float:
        """Return the height of a line in points."""
        return 1.3 * self.size

    def width(self, words: str) -> float:
        """Return the breadth of words in points."""
        return _unit_width(words) * self.size


def wrapped(words: str, lettering: Lettering, width: float, lines: int = 2) -> list[str]:
    """Return words broken into at most `lines` lines of `width` points, cut with an ellipsis.

    A word too long for a line is broken where it must be; signs that the face does not have
    become boxes. No words are no line.
    """
    rest, found = printable(" ".join(words.split())), list[str]()
    while rest and len(found) < lines:
        if lettering.width(rest) <= width:
            return [*found, rest]
        if len(found) == lines - 1:
            return [*found, _cut(rest, lettering, width)]
        fitting = _longest(rest, lettering, width)
        space = rest.rfind(" ", 0, fitting + 1)
        end = space if space > 0 else max(_joint(rest[:fitting]), 1)
        found.append(rest[:end].rstrip())
        rest = rest[end:].lstrip()
    return found


def printable(words: str) -> str:
    """Return words with every sign that the face lacks replaced by a box."""
    face = get_font(findfont(FontProperties(family=FAMILY)))
    return "".join(c if face.get_char_index(ord(c)) else "□" for c in words)


def _joint(words: str) -> int:
    """Return after which letter a long word is best broken: a joint in its later half, or all."""
    joint = max(words.rfind(sign) for sign in "-_/.") + 1
    return joint if joint > len(words) // 2 else len(words)


def _longest(words: str, lettering: Lettering, width: float) -> int:
    """Return how many of the letters fit."""
    count = len(words)
    while count and lettering.width(words[:count]) > width:
        count -= 1
    return count


def _cut(words: str, lettering: Lettering, width: float) -> str:
    count = _longest(words, lettering, width - lettering.width("…"))
    return words[:count].rstrip() + "…"


@cache
def _unit_width(words: str) -> float:
    face = FontProperties(family=FAMILY, size=100)
    return float(TextToPath().get_text_width_height_descent(words, face, ismath=False)[0]) / 100
