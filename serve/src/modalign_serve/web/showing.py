"""What the pages show of items, lists and reasons, as plain values that templates print."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlencode
from zlib import crc32

import numpy as np

from modalign_serve.artifact.artifact import Category
from modalign_serve.http.routes import IMAGES
from modalign_serve.ranker.catalogue import Catalogue
from modalign_serve.ranker.people import Basis
from modalign_serve.ranker.why import Why
from modalign_serve.service.models import Served
from modalign_serve.web.forms import State
from modalign_serve.web.titles import title_column

NEAREST = 3
COMPARED = 5000
"""Items, evenly spaced in the catalogue, against which a likeness is told to be large or not."""

TONES = 8
"""Colours of what is drawn where a picture is missing."""

LIKE = {"image": "Looks like", "text": "Reads like"}
SEGMENTS = {"image": "picture", "fusion": "together"}
BASES: Mapping[Basis, str] = {
    "trained": "It rests on what training learnt of this user.",
    "updated": "It rests on what training learnt of this user, moved by what was told since.",
    "folded": "It rests on the items above alone: they are all that is known.",
    "popular": "Nothing is known yet, so that these are the items chosen most often.",
}


@dataclass(frozen=True)
class Shown:
    """An item as a card or a small picture.

    Attributes:
        id, title: its title is its id where it has none.
        lines: a few words about it, such as its category.
        href, picture: addresses, of its page and its picture; None where it has no picture.
        initials, tone: of what is drawn in a picture's place; a category has one tone.
    """

    id: str
    title: str
    lines: Sequence[str]
    href: str
    picture: str | None
    initials: str
    tone: int


@dataclass(frozen=True)
class Part:
    """What a part of the vectors adds to a score.

    Attributes:
        name: in words.
        key: the segment's name.
        value: what it adds, below zero what it takes away.
        share: in per cent of what all parts add or take away.
        x, width: of its bar, from 0 to 100.
        zero: where bars begin.
    """

    name: str
    key: str
    value: float
    share: int
    x: float
    width: float
    zero: float


@dataclass(frozen=True)
class Near:
    """The liked items that an item is most like in one modality.

    Attributes:
        words: such as "Looks like".
        name: of the modality.
        items: each with its cosine, best first.
        above: how many per cent of the catalogue are less like anything that is liked.
    """

    words: str
    name: str
    items: Sequence[tuple[Shown, float]]
    above: int


@dataclass(frozen=True)
class Card:
    """An item of a list.

    Attributes:
        item: what it is.
        rank: its place, from 1.
        score: None where the list rests on popularity.
        parts: what each part of the vectors adds.
        near: what it is like.
        given: liked items with what they add, where the model adds up over the history.
        there: a few words about its place in another model's list.
        mark: it is new, or in both lists.
    """

    item: Shown
    rank: int
    score: float | None = None
    parts: Sequence[Part] = ()
    near: Sequence[Near] = ()
    given: Sequence[tuple[Shown, float]] = ()
    there: str = ""
    mark: str = ""


@dataclass(frozen=True)
class Interest:
    """One interest of a person.

    Attributes:
        name: in words.
        share: in per cent, of the scores of the list.
        items: those it speaks for most, best first.
    """

    name: str
    share: int
    items: Sequence[Shown]


def picture_path(served: Served, row: int) -> Path | None:
    """The file of an item's picture, if it has one of a kind that browsers show."""
    artifact = served.ranker.artifact
    path = artifact.image_path(row) if 0 <= row < artifact.n_items else None
    return path if path is not None and path.suffix.lower() in IMAGES else None


@dataclass
class Shower:
    """Makes `Shown` of rows; the same item is made once.

    Args:
        served: whose items.
        state: addresses keep it.
    """

    served: Served
    state: State
    catalogue: Catalogue = field(init=False)
    title: str | None = field(init=False)
    _known: dict[int, Shown] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.catalogue = self.served.ranker.catalogue
        self.title = title_column(self.catalogue)
        columns = self.catalogue.artifact.columns.items()
        self._lines = [name for name, one in columns if isinstance(one, Category)][:2]

    def of(self, row: int) -> Shown:
        """An item of the catalogue."""
        if row not in self._known:
            record = self.catalogue.record(row)
            one = self.catalogue.id(row)
            title = str(record.get(self.title) or one) if self.title else one
            lines = [str(record[name]) for name in self._lines if record.get(name) is not None]
            address = [("model", self.served.name), ("item", one), ("v", self.served.version)]
            has = picture_path(self.served, row) is not None
            self._known[row] = Shown(
                one,
                title,
                lines,
                self.state.to("item", ("item", one), model=self.served.name),
                f"picture?{urlencode(address)}" if has else None,
                initials(title),
                crc32("".join(lines[:1]).encode()) % TONES,
            )
        return self._known[row]

    def all(self, rows: Sequence[int] | np.ndarray) -> list[Shown]:
        """Items in the order of their rows."""
        return [self.of(int(row)) for row in rows]

    def by_id(self, ids: Sequence[str]) -> list[Shown]:
        """Items by id; unknown ones are left out."""
        found = self.catalogue.find(list(ids))
        return self.all(found[found >= 0])


def cards(
    shower: Shower,
    rows: Sequence[int],
    scores: Sequence[float | None],
    whys: Sequence[Why],
    history: np.ndarray,
) -> list[Card]:
    """A list with its reasons.

    Args:
        shower: of the model's items.
        rows: the list, best first.
        scores: of its items.
        whys: the reasons of each item; none where there is no taste to compare with.
        history: rows of what is known to be liked.
    """
    values = [value for why in whys for value in why.parts.values()]
    likeness = {name: _likeness(shower, name, rows, history) for name in _modalities(whys)}
    found = []
    for place, (row, score) in enumerate(zip(rows, scores, strict=True)):
        if not whys:
            found.append(Card(shower.of(row), place + 1))
            continue
        near = [
            Near(
                LIKE.get(name, f"In {name} like"),
                name,
                [(shower.by_id([one])[0], cosine) for one, cosine in items],
                likeness[name][place],
            )
            for name, items in whys[place].nearest.items()
            if items
        ]
        found.append(
            Card(
                shower.of(row),
                place + 1,
                score,
                parts_of(whys[place].parts, values),
                near,
                given_by(shower, row, history),
            )
        )
    return found


def parts_of(parts: Mapping[str, float], values: Sequence[float]) -> list[Part]:
    """Bars of one item's parts.

    Args:
        parts: what each adds.
        values: all parts of the list, which share a scale: from its smallest, or 0, to its largest.

    Example:
        >>> one, other = parts_of({"image": -1.0, "text": 3.0}, [-1.0, 3.0])
        >>> (one.x, one.width, one.share), (other.x, other.width, other.share)
        ((0.0, 25.0, 25), (25.0, 75.0, 75))
    """
    low, high = min([0.0, *values]), max([0.0, *values])
    span = (high - low) or 1.0
    whole = sum(abs(value) for value in parts.values()) or 1.0
    found = []
    for name, value in parts.items():
        x = 100 * (min(0.0, value) - low) / span
        found.append(
            Part(
                SEGMENTS.get(name, name),
                name,
                value,
                round(100 * abs(value) / whole),
                round(x, 2),
                round(100 * abs(value) / span, 2),
                round(-100 * low / span, 2),
            )
        )
    return found


def by_interest(whys: Sequence[Why], rows: Sequence[int], cells: np.ndarray) -> list[Why]:
    """Reasons whose parts are the shares of a person's interests in each score.

    Args:
        whys: of each row.
        rows: of items.
        cells: what each interest adds, (n_items, K).
    """
    own = cells[np.asarray(rows, np.int64)].astype(np.float64)
    shares = own / np.maximum(own.sum(axis=1, keepdims=True), 1e-300)
    return [
        replace(why, parts={f"interest {k + 1}": float(one) for k, one in enumerate(row)})
        for why, row in zip(whys, shares, strict=True)
    ]


def interests_shown(
    shower: Shower, whys: Sequence[Why], cells: np.ndarray, n: int
) -> list[Interest]:
    """The interests that `by_interest` counted, each with its best n items."""
    names = list(whys[0].parts) if whys else []
    best = np.argsort(-cells, axis=0, kind="stable")[:n]
    return [
        Interest(
            name.capitalize(),
            round(100 * float(np.mean([why.parts[name] for why in whys]))),
            shower.all(best[:, k]),
        )
        for k, name in enumerate(names)
    ]


def initials(title: str) -> str:
    """One or two letters or digits.

    Example:
        >>> initials("red rucksack, 20 l"), initials("item-7"), initials("***")
        ('RR', 'I7', '?')
    """
    words = re.findall(r"[^\W_]+", title)[:2]
    return "".join(word[0] for word in words).upper() or "?"


def given_by(shower: Shower, row: int, history: np.ndarray) -> list[tuple[Shown, float]]:
    """The liked items that add most to a score, where the model adds up over the history."""
    table = shower.catalogue.artifact.neighbours
    if table is None or row >= shower.catalogue.n_trained:
        return []
    liked = history[history < shower.catalogue.n_trained]
    owner, at = table.places(liked)
    here = table.indices[at] == row
    values = np.ones(len(at)) if table.values is None else table.values[at]
    giving, amounts = liked[owner[here]], values[here]
    order = np.argsort(-amounts, kind="stable")[:NEAREST]
    return [(shower.of(int(giving[one])), float(amounts[one])) for one in order]


def _modalities(whys: Sequence[Why]) -> list[str]:
    return list(whys[0].nearest) if whys else []


def _likeness(shower: Shower, name: str, rows: Sequence[int], history: np.ndarray) -> list[int]:
    """Of each row the share of the catalogue, in per cent, that is less like what is liked: an
    item's likeness is its largest cosine with any liked item.
    """
    catalogue = shower.catalogue
    liked = catalogue.features(name, history)
    liked = liked[liked.any(axis=1)]
    if not len(liked):
        return [0] * len(rows)
    n = catalogue.n_trained
    some = np.unique(np.linspace(0, n - 1, min(n, COMPARED)).astype(np.int64))
    some = np.setdiff1d(some, history)
    others = np.sort((catalogue.features(name, some) @ liked.T).max(axis=1, initial=-1.0))
    own = (catalogue.features(name, np.asarray(rows, np.int64)) @ liked.T).max(axis=1)
    below = np.searchsorted(others, own) / max(1, len(others))
    return [int(100 * share) for share in below]
