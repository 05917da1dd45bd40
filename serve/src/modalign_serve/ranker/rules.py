"""What may be asked of a list beyond the best scores: filters, boosts, limits, diversity."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from modalign_serve.artifact.artifact import Category, Column
from modalign_serve.artifact.strings import Strings
from modalign_serve.errors import ConfigError, TooSlow, UnknownName

Where: TypeAlias = Mapping[str, Any]
"""Conditions on item metadata, all of which must hold. For a column of categories or texts: a value
or a list of values. For numbers: a value or `{"min": a, "max": b}`, both ends included, either
optional. Texts such as ISO dates take `{"min": a, "max": b}` too. An item
without a value meets no condition."""


@dataclass(frozen=True)
class Lift:
    """Raise the scores of some items, or lower them with a negative amount.

    An item's score becomes `score + amount * s`, where s is the standard deviation of the user's
    scores over the whole catalogue: an amount has the same effect for every model and user.

    Attributes:
        amount: in standard deviations; 1 is strong.
        where: items by metadata.
        items: items by id, in addition to those that meet `where`; unknown ids are ignored.

    Raises:
        ConfigError: the amount is not finite, or no item is meant.
    """

    amount: float
    where: Where | None = None
    items: Sequence[str] = ()

    def __post_init__(self) -> None:
        if not np.isfinite(self.amount):
            raise ConfigError("a finite amount of a boost", repr(self.amount), "try 0.5")
        if self.where is None and not self.items:
            raise ConfigError("a boost of some items", "neither where nor items", "give one")


@dataclass(frozen=True)
class Rules:
    """What is asked of a list beyond the best scores.

    Attributes:
        filter_seen: leave out what the user had.
        exclude: ids of items to leave out; unknown ones are ignored.
        allow: ids of the only items that may be listed, or None; unknown ones are ignored.
        where: list only items whose metadata meet these conditions; see `Where`.
        boost: changes of the scores of some items; they add up.
        at_most_per: by column of categories, the maximum number of items with one value; items
            without a value are not limited.
        diversity: from 0 (best scores) to 1 (items as different as possible); see
            `modalign_serve.ranker.picking.marginal_relevance`. Items are chosen from the best
            `max(100, 5 k)` that the other rules leave.
        until: `time.monotonic()` at which ranking stops with `TooSlow`; infinite by default.

    Raises:
        ConfigError: a diversity or a limit is out of its bounds.

    Example:
        >>> Rules(exclude=["i7"], at_most_per={"category": 2}).only_hides
        False
    """

    filter_seen: bool = True
    exclude: Sequence[str] = ()
    allow: Sequence[str] | None = None
    where: Where | None = None
    boost: Sequence[Lift] = ()
    at_most_per: Mapping[str, int] = field(default_factory=dict)
    diversity: float = 0.0
    until: float = float("inf")

    def __post_init__(self) -> None:
        if not 0.0 <= self.diversity <= 1.0:
            raise ConfigError("a diversity from 0 to 1", repr(self.diversity), "try 0.3")
        for column, n in self.at_most_per.items():
            if isinstance(n, bool) or not isinstance(n, int) or n < 1:
                raise ConfigError(
                    f"a whole number from 1 up as the limit per {column}", repr(n), "try 2"
                )

    @property
    def only_hides(self) -> bool:
        """Whether all that is asked is to leave some items out."""
        asked = self.allow is not None or self.where or self.boost or self.at_most_per
        return not (asked or self.diversity)

    def check_time(self) -> None:
        """Raise `TooSlow` after `until`."""
        if time.monotonic() > self.until:
            raise TooSlow("the lists were not ready in time")


DEFAULT = Rules()
"""Leave out what the user had, and nothing else."""


def matches(columns: Mapping[str, Column], where: Where, n: int) -> np.ndarray:
    """Which of n items meet all conditions, bool (n,).

    Args:
        columns: item metadata by name.
        where: the conditions.
        n: number of items.

    Raises:
        UnknownName: no such column.
        ConfigError: a condition of another type than its column.

    Example:
        >>> columns = {"price": np.array([3.0, 8.0, np.nan])}
        >>> matches(columns, {"price": {"max": 5}}, 3).tolist()
        [True, False, False]
    """
    found = np.ones(n, bool)
    for name, wanted in where.items():
        if name not in columns:
            raise UnknownName("item column", name, columns or ["(none)"])
        column = columns[name]
        if isinstance(column, np.ndarray):
            found &= _in_range(name, column, wanted)
        else:
            found &= _is_one_of(column, _meaning(name, wanted))
    return found


def _meaning(name: str, wanted: Any) -> Callable[[str], bool]:
    """Whether a text meets a condition; a missing one, which is empty, does not."""
    if not isinstance(wanted, Mapping):
        return _values(name, wanted).__contains__
    bounds = wanted.values()
    if not wanted or set(wanted) - {"min", "max"} or not all(isinstance(b, str) for b in bounds):
        raise ConfigError(
            f"a text, a list of texts, or texts as min and max for {name}",
            repr(wanted),
            'write {"min": "2020-01-01"}',
        )
    low, high = wanted.get("min", ""), wanted.get("max")
    # A day as the upper end includes the times of that day.
    return lambda one: (
        one != "" and low <= one and (high is None or one <= high or one.startswith(high))
    )


def _values(name: str, wanted: Any) -> set[Any]:
    values = [wanted] if isinstance(wanted, str) else wanted
    if not isinstance(values, Sequence) or not all(isinstance(one, str) for one in values):
        raise ConfigError(f"a text or a list of texts for {name}", repr(wanted), "quote the values")
    return set(values)


def _is_one_of(column: Strings | Category, meant: Callable[[str], bool]) -> np.ndarray:
    if isinstance(column, Category):
        codes = [code for code, name in enumerate(column.names) if meant(name)]
        return np.isin(column.codes, codes)
    return np.fromiter((meant(one) for one in column), bool, len(column))


def _in_range(name: str, column: np.ndarray, wanted: Any) -> np.ndarray:
    bounds = wanted if isinstance(wanted, Mapping) else {"min": wanted, "max": wanted}
    numbers = all(
        isinstance(one, int | float) and not isinstance(one, bool) for one in bounds.values()
    )
    if not bounds or set(bounds) - {"min", "max"} or not numbers:
        raise ConfigError(
            f"a number, or min and max, for {name}", repr(wanted), 'write {"min": 1, "max": 5}'
        )
    low, high = bounds.get("min", -np.inf), bounds.get("max", np.inf)
    inside: np.ndarray = (column >= low) & (column <= high)
    return inside


def within_limit(codes: np.ndarray, limit: int) -> np.ndarray:
    """Which entries of each row are among the first `limit` of their code, bool like `codes`.

    Entries of code -1 are not limited.

    Args:
        codes: int, (B, P), best first.
        limit: maximum number of entries with one code.

    Example:
        >>> within_limit(np.array([[4, 4, -1, 4, 2, -1]]), 2).tolist()
        [[True, True, True, False, True, True]]
    """
    order = np.argsort(codes, axis=1, kind="stable")
    ordered = np.take_along_axis(codes, order, axis=1)
    places = np.arange(codes.shape[1])
    fresh = np.ones_like(ordered, dtype=bool)
    fresh[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first = np.maximum.accumulate(np.where(fresh, places, 0), axis=1)
    kept = (places - first < limit) | (ordered < 0)
    found = np.empty_like(kept)
    np.put_along_axis(found, order, kept, axis=1)
    return found
