"""What is asked of a list: checked against the model, as the ranker takes it, and answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from modalign_serve.errors import Failure, UnknownName
from modalign_serve.ranker.ranker import Ranked
from modalign_serve.ranker.rules import Boost
from modalign_serve.service import schemas
from modalign_serve.service.models import Served
from modalign_serve.service.schemas import Range, Recommend, Scored


def plain(asked: Recommend) -> bool:
    """Whether nothing is asked of a list but its length."""
    return not (
        asked.exclude
        or asked.allow is not None
        or asked.where
        or asked.boost
        or asked.at_most_per
        or asked.diversity
        or asked.fields
    )


def rules_of(asked: Recommend) -> dict[str, Any]:
    """What is asked of a list, as the ranker takes it."""
    boosts = [
        Boost(one.amount, where_of(one.where), [str(item) for item in one.items])
        for one in asked.boost
    ]
    return {
        "filter_seen": asked.filter_seen,
        "exclude": [str(one) for one in asked.exclude],
        "allow": None if asked.allow is None else [str(one) for one in asked.allow],
        "where": where_of(asked.where),
        "boost": boosts,
        "at_most_per": asked.at_most_per,
        "diversity": asked.diversity,
    }


def where_of(where: dict[str, Any] | None) -> dict[str, Any] | None:
    """Conditions on metadata, with ranges as plain dictionaries."""
    if where is None:
        return None
    return {
        name: msgspec.to_builtins(wanted) if isinstance(wanted, Range) else wanted
        for name, wanted in where.items()
    }


def check_asked(served: Served, asked: Recommend) -> None:
    """Refuse what the model cannot give.

    Raises:
        UnknownName: a column to send along that it does not have.
        Failure: 409 where diversity is asked of a model without item vectors.
    """
    check_fields(served, asked.fields)
    if asked.diversity:
        need_vectors(served, "for lists of unlike items")


def need_vectors(served: Served, reason: str) -> None:
    """Raise a Failure of 409 where the model has no item vectors."""
    artifact = served.ranker.artifact
    if artifact.items is None:
        raise Failure(
            409, f"a model with item vectors, {reason}", artifact.manifest.model,
            "serve a model with vectors, such as a distilled one",
        )  # fmt: skip


def need_fold_in(served: Served) -> None:
    """Raise a Failure of 409 where the model has no way from items to a user's vector."""
    artifact = served.ranker.artifact
    if artifact.manifest.kind == "factors" and not artifact.manifest.fold_in.get("default"):
        raise Failure(
            409, "a model with a way from items to a user's vector", served.name,
            "export the run again with a fold-in",
        )  # fmt: skip


def check_fields(served: Served, fields: Sequence[str]) -> None:
    """Raise UnknownName where the model has no such column."""
    known = served.ranker.artifact.columns
    for name in fields:
        if name not in known:
            raise UnknownName("item column", name, known or ["(none)"])


def scored(found: Ranked, place: int, fields: Sequence[str]) -> list[Scored]:
    """The list of one person, with the columns that are asked for."""
    pairs = found.pairs(place)
    if not fields:
        return [Scored(item, score) for item, score in pairs]
    rows = found.rows[place].tolist()
    records = [found.catalogue.record(row) for row in rows[: len(pairs)]]
    return [
        Scored(item, score, {name: finite(record.get(name)) for name in fields})
        for (item, score), record in zip(pairs, records, strict=True)
    ]


def finite(value: str | float | None) -> str | float | None:
    """JSON has no infinite numbers."""
    infinite = isinstance(value, float) and value in (float("inf"), float("-inf"))
    return None if infinite else value


def unknown_user(served: Served, user: str) -> schemas.Trouble:
    """What is told of a user that nobody knows."""
    return schemas.Trouble(
        f"a user that {served.name} was trained on, or that feedback told of",
        repr(user),
        "send items that the user liked as `items`, or events to /v1/feedback first",
    )
