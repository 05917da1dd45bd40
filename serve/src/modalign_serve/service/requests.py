"""Requests for lists: checked against the model, translated for the ranker, and answered."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from modalign_serve.errors import Failure, UnknownName
from modalign_serve.ranker.people import UNKNOWN, Person
from modalign_serve.ranker.ranker import Ranked
from modalign_serve.ranker.rules import Lift, Rules
from modalign_serve.service.schemas import Range, Recommend, Scored, Similar, Trouble
from modalign_serve.service.served import Served

MAX_ENTRIES: Final = 50_000
"""Maximum number of users (or items) times k in one request."""
MAX_FIELDS: Final = 16_000_000
"""Maximum characters of metadata in one answer."""
RANK_SECONDS: Final = 5.0
"""Maximum seconds to rank for one request."""


def deadline() -> float:
    """When ranking for a request that comes now must end, for `Rules.until`."""
    return time.monotonic() + RANK_SECONDS


def entries(asked: int, k: int) -> int:
    """The entries that a request asks for.

    Args:
        asked: number of users or items.
        k: length of the lists.

    Raises:
        Failure: 422.
    """
    if asked * k > MAX_ENTRIES:
        raise Failure(
            422, f"at most {MAX_ENTRIES:,} entries: the number of lists times k",
            f"{asked:,} x {k:,}", "ask for fewer lists at a time, or shorter ones",
        )  # fmt: skip
    return asked * k


class Room:
    """What is left of an answer's size for metadata."""

    def __init__(self) -> None:
        self.left = MAX_FIELDS

    def take(self, fields: dict[str, str | float | None]) -> dict[str, str | float | None]:
        """The fields, if there is room for them.

        Raises:
            Failure: 422 if there is not.
        """
        self.left -= sum(len(one) if isinstance(one, str) else 8 for one in fields.values())
        if self.left < 0:
            raise Failure(
                422, f"an answer with at most {MAX_FIELDS:,} characters of metadata", "more",
                "ask for fewer lists at a time, shorter ones, or fewer fields",
            )  # fmt: skip
        return fields


def is_plain(asked: Recommend) -> bool:
    """Whether a request asks for nothing but a number of items."""
    return not (
        asked.exclude
        or asked.allow is not None
        or asked.where
        or asked.boost
        or asked.at_most_per
        or asked.diversity
        or asked.fields
    )


def rules_of(asked: Recommend) -> Rules:
    """The rules of a request for recommendations."""
    lifts = [
        Lift(one.amount, _where(one.where), [str(item) for item in one.items])
        for one in asked.boost
    ]
    return Rules(
        filter_seen=asked.filter_seen,
        exclude=[str(one) for one in asked.exclude],
        allow=None if asked.allow is None else [str(one) for one in asked.allow],
        where=_where(asked.where),
        boost=lifts,
        at_most_per=asked.at_most_per,
        diversity=asked.diversity,
        until=deadline(),
    )


def rules_of_similar(asked: Similar) -> Rules:
    """The rules of a request for similar items."""
    return Rules(
        exclude=[str(one) for one in asked.exclude],
        where=_where(asked.where),
        until=deadline(),
    )


def _where(where: dict[str, Any] | None) -> dict[str, Any] | None:
    """Conditions on metadata, with ranges as plain dictionaries."""
    if where is None:
        return None
    return {
        name: msgspec.to_builtins(wanted) if isinstance(wanted, Range) else wanted
        for name, wanted in where.items()
    }


def check_asked(served: Served, asked: Recommend) -> None:
    """Refuse what the model cannot do.

    Raises:
        UnknownName: a field that its items do not have.
        Failure: 409 for diversity of a model without item vectors.
    """
    check_fields(served, asked.fields)
    if asked.diversity:
        need_vectors(served, "for diverse lists")


def person_of(served: Served, user: str, asked: Recommend) -> Person | None:
    """What is known of a user; for an unknown one nothing, or None where that is an error.

    Args:
        served: the model.
        user: id of the user.
        asked: the request, whose `on_unknown` says which.
    """
    person = served.find(user)
    return UNKNOWN if person is None and asked.on_unknown == "popular" else person


def need_vectors(served: Served, reason: str) -> None:
    """Raise a Failure of 409 if the model has no item vectors."""
    if not served.ranker.has_vectors:
        raise Failure(
            409, f"a model with item vectors, {reason}", served.ranker.manifest.model,
            "serve a model with vectors, such as a distilled one",
        )  # fmt: skip


def need_fold_in(served: Served) -> None:
    """Raise a Failure of 409 if the model cannot make a user's vector from items."""
    if not served.ranker.takes_items:
        raise Failure(
            409, "a model with a fold-in, to make a user's vector from items", served.name,
            "export the run again with a fold-in",
        )  # fmt: skip


def check_fields(served: Served, fields: Sequence[str]) -> None:
    """Raise UnknownName if the model's items have no such column."""
    known = served.ranker.columns
    for name in fields:
        if name not in known:
            raise UnknownName("item column", name, known or ["(none)"])


def scored(
    found: Ranked, place: int, fields: Sequence[str], room: Room | None = None
) -> list[Scored]:
    """One list as it is answered.

    Args:
        found: the lists.
        place: which of them.
        fields: columns of metadata to add.
        room: what is left of the answer's size; None: this list is the whole answer.

    Raises:
        Failure: 422 for more metadata than an answer may hold.
    """
    room = room or Room()
    pairs = found.pairs(place)
    if not fields:
        return [Scored(item, score) for item, score in pairs]
    records = map(found.catalogue.record, found.kept(place).tolist())
    return [
        Scored(item, score, room.take({name: finite(record.get(name)) for name in fields}))
        for (item, score), record in zip(pairs, records, strict=True)
    ]


def finite(value: str | float | None) -> str | float | None:
    """The value, or None for an infinite number, which JSON does not have."""
    infinite = isinstance(value, float) and value in (float("inf"), float("-inf"))
    return None if infinite else value


def unknown_user(served: Served, user: str) -> Trouble:
    """The answer for a user that the model does not know."""
    return Trouble(
        f"a user from the training data of {served.name!r} or from recorded feedback",
        repr(user),
        "send on_unknown=popular, the items that the user liked as `items`, or events to "
        "/v1/feedback first",
    )
