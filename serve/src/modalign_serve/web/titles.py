"""Search by title: the title must contain every word of the query, in any order and case."""

from __future__ import annotations

import re
import unicodedata

import numpy as np

from modalign_serve.artifact.strings import Strings
from modalign_serve.ranker.catalogue import Catalogue

MAX_LOOKED_AT = 5000
"""Maximum number of titles with the longest word that are compared with the other words."""
NAMES = ("title", "name", "product_title")


def title_column(catalogue: Catalogue) -> str | None:
    """The column with the titles of items; None if there is none."""
    columns = catalogue.artifact.columns
    return next((name for name in NAMES if isinstance(columns.get(name), Strings)), None)


def folded(text: str) -> str:
    """A text as it is compared: in lower case, without accents.

    Example:
        >>> folded("Überwurf CAFÉ")
        'uberwurf cafe'
    """
    if text.isascii():
        return text.lower()
    plain = unicodedata.normalize("NFKD", text.casefold())
    return "".join(one for one in plain if not unicodedata.combining(one))


class Titles:
    """The titles of a catalogue's trained items, concatenated into one text.

    A search looks for its longest word in the text, which for a million titles takes about as long
    as reading the text once, and compares the other words only where it is found.

    Args:
        catalogue: with the titles; those of added items are read in every search.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        name = title_column(catalogue)
        column = catalogue.artifact.columns.get(name) if name else None
        found = list(column) if isinstance(column, Strings) else []
        self._text = "\n".join(_spaced(one) for one in found).encode()
        ends = np.flatnonzero(np.frombuffer(self._text, np.uint8) == 10)
        self._ends = np.append(ends, len(self._text))

    def search(self, catalogue: Catalogue, asked: str, n: int) -> list[int]:
        """Rows of items: the item with the id asked for, then titles with words that start as
        asked, then titles that contain the letters anywhere; among each the new items first.

        Args:
            catalogue: the items there are now.
            asked: words of a title, or an id.
            n: maximum number of rows.
        """
        rows = catalogue.find([asked.strip()])
        found: list[int] = rows[rows >= 0].tolist()
        words = sorted(_spaced(asked).split(), key=len, reverse=True)
        if not words:
            return found
        for start in (" ", ""):
            wanted = [start + word for word in words]
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
        for _ in range(MAX_LOOKED_AT):
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
    """A title as it is searched: a space before every word, no punctuation.

    Example:
        >>> _spaced("T-shirt, RED")
        ' t shirt red'
    """
    return "".join(f" {word}" for word in re.findall(r"\w+", folded(title)))
