"""Search by title: every word that is asked for must stand in it, in any order and any case."""

from __future__ import annotations

import re
import unicodedata

import numpy as np

from modalign_serve.artifact.strings import Strings
from modalign_serve.ranker.catalogue import Catalogue

LOOKED_AT = 5000
"""Titles that hold the longest word and are looked at; beyond them nothing is searched."""
NAMES = ("title", "name", "product_title")


def title_column(catalogue: Catalogue) -> str | None:
    """The column that holds what an item is called; None where no column does."""
    columns = catalogue.artifact.columns
    return next((name for name in NAMES if isinstance(columns.get(name), Strings)), None)


def folded(text: str) -> str:
    """A text as it is compared: no capitals, no accents.

    Example:
        >>> folded("Überwurf CAFÉ")
        'uberwurf cafe'
    """
    if text.isascii():
        return text.lower()
    plain = unicodedata.normalize("NFKD", text.casefold())
    return "".join(one for one in plain if not unicodedata.combining(one))


class Titles:
    """Titles of a catalogue's trained items, one after the other in one text.

    A search walks through the text for its longest word, which for a million titles takes about as
    long as reading the text once, and compares the other words only where that one stands.

    Args:
        catalogue: whose titles; those of added items are looked at anew in every search.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        name = title_column(catalogue)
        column = catalogue.artifact.columns.get(name) if name else None
        found = list(column) if isinstance(column, Strings) else []
        self._text = "\n".join(_spaced(one) for one in found).encode()
        ends = np.flatnonzero(np.frombuffer(self._text, np.uint8) == 10)
        self._ends = np.append(ends, len(self._text))

    def search(self, catalogue: Catalogue, asked: str, n: int) -> list[int]:
        """Rows of at most n items: the item whose id is asked for, then titles with words that
        begin as asked, then those with the letters anywhere; of each the new items first.
        """
        rows = catalogue.find([asked.strip()])
        found: list[int] = rows[rows >= 0].tolist()
        words = sorted(_spaced(asked).split(), key=len, reverse=True)
        if not words:
            return found
        for begin in (" ", ""):
            wanted = [begin + word for word in words]
            found += self._added(catalogue, wanted)
            found += self._trained([word.encode() for word in wanted], n + 1)
        return list(dict.fromkeys(found))[:n]

    def _added(self, catalogue: Catalogue, words: list[str]) -> list[int]:
        name = title_column(catalogue)
        if name is None:
            return []
        titles = (_spaced(str(one.get(name) or "")) for one in catalogue.added.records)
        return [
            catalogue.n_trained + place
            for place, title in enumerate(titles)
            if all(word in title for word in words)
        ]

    def _trained(self, words: list[bytes], n: int) -> list[int]:
        text, at = self._text, 0
        found: list[int] = []
        for _ in range(LOOKED_AT):
            at = text.find(words[0], at)
            if at < 0 or len(found) >= n:
                break
            row = int(np.searchsorted(self._ends, at))
            end = int(self._ends[row])
            start = int(self._ends[row - 1]) + 1 if row else 0
            title = text[start:end]
            if all(word in title for word in words[1:]):
                found.append(row)
            at = end
        return found


def _spaced(title: str) -> str:
    """A title as it is searched: a space before every word, none of its signs.

    Example:
        >>> _spaced("T-shirt, RED")
        ' t shirt red'
    """
    return "".join(f" {word}" for word in re.findall(r"\w+", folded(title)))
