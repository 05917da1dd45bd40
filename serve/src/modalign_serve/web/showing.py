"""Items, lists and explanations as plain values for the templates."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import urlencode
from zlib import crc32

import numpy as np

from modalign_serve.artifact.artifact import Category
from modalign_serve.ranker.catalogue import Catalogue
from modalign_serve.ranker.people import Basis
from modalign_serve.ranker.why import Why
from modalign_serve.service.served import Served
from modalign_serve.web.forms import State
from modalign_serve.web.titles import title_column

NEAREST = 3
COMPARED = 5000
"""Number of items, evenly spaced in the catalogue, with which a similarity is compared."""

TONES = 8
"""Number of colours of the placeholders of missing pictures."""

LIKE = {"image": "Looks like", "text": "Reads like"}
SEGMENTS = {"image": "picture", "fusion": "together"}
BASES: Mapping[Basis, str] = {
    "trained": "Based on this user’s training data.",
    "updated": "Based on this user’s training data, updated with later feedback.",
    "folded": "Based on the items above only.",
    "popular": "Nothing is known yet: these are the most popular items.",
}


@dataclass(frozen=True)
class Shown:
    """An item as a card or a small picture.

    Attributes:
        id, title: the id also serves as the title of an item without one.
        lines: some words about it, such as its category.
        href, picture: addresses of its page and its picture; None if it has no picture.
        initials, tone: of the placeholder of a missing picture; a category has one tone.
    """

    id: str
    title: str
    lines: Sequence[str]
    href: str
    picture: str | None
    initials: str
    tone: int


@dataclass(frozen=True)
class ScorePart:
    """What a part of the vectors adds to a score.

    Attributes:
        name: in words.
        key: the segment's name.
        value: that it adds; negative if it lowers the score.
        share: in percent of the sum of all parts' magnitudes.
        x, width: of its bar, from 0 to 100.
        zero: where bars start.
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
    """The liked items that are most similar to an item in one modality.

    Attributes:
        words: such as "Looks like".
        name: of the modality.
        items: each with its cosine, best first.
        above: percentage of the catalogue that is less similar to all liked items.
    """

    words: str
    name: str
    items: Sequence[tuple[Shown, float]]
    above: int


@dataclass(frozen=True)
class ListEntry:
    """An item of a list.

    Attributes:
        rank: its place, from 1.
        score: None if the list is based on popularity.
        parts: what each part of the vectors adds.
        near: similar liked items.
        given: liked items with what they add, if the model sums over the history.
        there: some words about its place in another model's list.
        mark: "both" if it is in both lists.
    """

    item: Shown
    rank: int
    score: float | None = None
    parts: Sequence[ScorePart] = ()
    near: Sequence[Near] = ()
    given: Sequence[tuple[Shown, float]] = ()
    there: str = ""
    mark: str = ""


@dataclass(frozen=True)
class Interest:
    """One interest of a user.

    Attributes:
        name: in words.
        share: in percent of the scores of the list.
        items: those that it contributes to most, best first.
    """

    name: str
    share: int
    items: Sequence[Shown]


@dataclass
class Shower:
    """Makes `Shown` from rows; each item is made once.

    Args:
        served: whose items.
        state: that addresses keep.
    """

    served: Served
    state: State
    catalogue: Catalogue = field(init=False)
    title: str | None = field(init=False)
    _known: dict[int, Shown] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.catalogue = self.served.ranker.catalogue
        self.title = title_column(self.catalogue)
        columns = self.served.ranker.columns.items()
        self._lines = [name for name, one in columns if isinstance(one, Category)][:2]

    def of(self, row: int) -> Shown:
        """An item of the catalogue."""
        if row not in self._known:
            record = self.catalogue.record(row)
            one = self.catalogue.id(row)
            title = str(record.get(self.title) or one) if self.title else one
            lines = [str(record[name]) for name in self._lines if record.get(name) is not None]
            address = [("model", self.served.name), ("item", one), ("v", self.served.version)]
            has = self.served.picture_name(row) is not None
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
) -> list[ListEntry]:
    """The entries of a list.

    Args:
        shower: of the model's items.
        rows: of the listed items, best first.
        scores: of the listed items.
        whys: explanation of each item; empty if there is nothing to compare with.
        history: rows of the liked items.
    """
    values = [value for why in whys for value in why.parts.values()]
    names = list(whys[0].nearest) if whys else []
    likeness = {name: _likeness(shower, name, rows, history) for name in names}
    found = []
    for place, (row, score) in enumerate(zip(rows, scores, strict=True)):
        if not whys:
            found.append(ListEntry(shower.of(row), place + 1))
            continue
        near = [
            Near(
                LIKE.get(name, f"Similar in {name}"),
                name,
                [(shower.by_id([one])[0], cosine) for one, cosine in items],
                likeness[name][place],
            )
            for name, items in whys[place].nearest.items()
            if items
        ]
        found.append(
            ListEntry(
                shower.of(row),
                place + 1,
                score,
                parts_of(whys[place].parts, values),
                near,
                given_by(shower, row, history),
            )
        )
    return found


def parts_of(parts: Mapping[str, float], values: Sequence[float]) -> list[ScorePart]:
    """Bars of one item's parts.

    Args:
        parts: what each adds.
        values: all parts of the list; the bars have one scale, from the smallest (or 0) to the
            largest.

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
            ScorePart(
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
    """Explanations whose parts are the shares of a user's interests in each score.

    Args:
        whys: explanation of each row.
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
    """The interests of a list, each with its best items.

    Args:
        shower: of the model's items.
        whys: as `by_interest` returned them.
        cells: what each interest adds, (n_items, K).
        n: number of items per interest.
    """
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
    """One or two letters or digits of a title.

    Example:
        >>> initials("red rucksack, 20 l"), initials("item-7"), initials("***")
        ('RR', 'I7', '?')
    """
    words = re.findall(r"[^\W_]+", title)[:2]
    return "".join(word[0] for word in words).upper() or "?"


def given_by(shower: Shower, row: int, history: np.ndarray) -> list[tuple[Shown, float]]:
    """The liked items that add most to a score, if the model sums over the history.

    Args:
        shower: of the model's items.
        row: of the item.
        history: rows of the liked items.
    """
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


def _likeness(shower: Shower, name: str, rows: Sequence[int], history: np.ndarray) -> list[int]:
    """For each row the percentage of the catalogue that is less similar to the liked items. The
    similarity of an item is its largest cosine with a liked item.
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
