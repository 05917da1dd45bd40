"""The users that lists are made for: what they had, what the model reads of it, their vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from modalign_serve.artifact.artifact import Artifact

Basis = Literal["trained", "updated", "folded", "popular"]
"""What a list is based on: the trained vector; that vector updated by later feedback; a vector made
from the history alone; or, if nothing is known of the user, popularity."""


@dataclass(frozen=True, slots=True)
class Person:
    """One user.

    Attributes:
        seen: rows of items left out of the user's lists, ascending, int64.
        history: rows of items the model reads, ascending, int64.
        vector: (width,), or None if the model has none.
        basis: what the vector (or the history) is based on.
    """

    seen: np.ndarray
    history: np.ndarray
    vector: np.ndarray | None
    basis: Basis


UNKNOWN = Person(np.zeros(0, np.int64), np.zeros(0, np.int64), None, "popular")
"""A user of whom nothing is known."""


@dataclass(frozen=True, slots=True)
class Block:
    """Several users at once; ragged lists as two arrays, owner (place of the user) and item.

    Attributes:
        vectors: (n, width), or None if the model has none.
        seen: owner and item of everything left out.
        history: owner and item of everything read; empty unless the model reads histories.
        popular: places of the users of whom nothing is known.
        basis: of each user.
    """

    n: int
    vectors: np.ndarray | None
    seen: tuple[np.ndarray, np.ndarray]
    history: tuple[np.ndarray, np.ndarray]
    popular: Sequence[int]
    basis: tuple[Basis, ...]


def person_of(artifact: Artifact, row: int) -> Person:
    """A user of the artifact."""
    seen = artifact.seen.row(row)
    history = seen if artifact.history is None else artifact.history.row(row)
    vector = None if artifact.users is None else artifact.users[row]
    return Person(seen, history, vector, "trained" if len(history) else "popular")


def block_of(people: Sequence[Person], reads_history: bool) -> Block:
    """A block of any users; `reads_history` says whether the model reads histories."""
    if len(people) == 1:
        (one,) = people
        zeros = np.zeros(len(one.seen), np.int64)
        read = one.history if reads_history else one.history[:0]
        return Block(
            1,
            None if one.vector is None else one.vector[None],
            (zeros, one.seen),
            (np.zeros(len(read), np.int64), read),
            [0] if one.basis == "popular" else [],
            (one.basis,),
        )
    width = max((len(one.vector) for one in people if one.vector is not None), default=0)
    blank = np.zeros(width, np.float32)
    return Block(
        len(people),
        np.stack([blank if one.vector is None else one.vector for one in people])
        if width
        else None,
        _ragged([one.seen for one in people]),
        _ragged([one.history if reads_history else one.history[:0] for one in people]),
        [place for place, one in enumerate(people) if one.basis == "popular"],
        tuple(one.basis for one in people),
    )


def block_of_rows(artifact: Artifact, rows: np.ndarray, reads_history: bool) -> Block:
    """A block of users of the artifact, without a Python step for each.

    Args:
        artifact: with the users.
        rows: of users, int64.
        reads_history: whether the model reads histories.
    """
    read = artifact.seen if artifact.history is None else artifact.history
    empty = read.indptr[rows + 1] == read.indptr[rows]
    owner, at = artifact.seen.places(rows)
    histories = (np.zeros(0, np.int64), np.zeros(0, np.int64))
    if reads_history:
        of, place = read.places(rows)
        histories = (of, read.indices[place])
    basis: tuple[Basis, ...] = tuple("popular" if one else "trained" for one in empty.tolist())
    return Block(
        len(rows),
        None if artifact.users is None else artifact.users[rows],
        (owner, artifact.seen.indices[at]),
        histories,
        np.flatnonzero(empty).tolist(),
        basis,
    )


def _ragged(lists: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    owner = np.repeat(np.arange(len(lists)), [len(one) for one in lists])
    return owner, np.concatenate([*lists, np.zeros(0, np.int64)]).astype(np.int64)
