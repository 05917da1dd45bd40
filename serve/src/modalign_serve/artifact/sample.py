"""A small artifact, to try a server without a trained model, and for examples and tests."""

from __future__ import annotations

import numpy as np

from modalign_serve.artifact.artifact import Artifact, Category, Csr
from modalign_serve.artifact.manifest import Manifest
from modalign_serve.artifact.strings import Ids, Strings


def small_artifact(
    n_users: int = 6, n_items: int = 8, width: int = 4, seed: int = 1, mean_seen: int = 2
) -> Artifact:
    """Random factors with every part a served artifact may have, in memory.

    Users are `u0`, `u1`, ...; items `i0`, `i1`, ... with a title, one of three categories (every
    seventh item has none) and a price.

    Args:
        n_users: number of users.
        n_items: number of items.
        width: of the vectors.
        seed: of the random factors.
        mean_seen: mean number of items that a user has seen; the last user has seen none.

    Example:
        >>> small_artifact().item_record(1)
        {'title': 'Item 1', 'category': 'b', 'price': 2.0}
    """
    rng = np.random.default_rng(seed)
    users = rng.normal(size=(n_users, width)).astype(np.float32)
    items = rng.normal(size=(n_items, width)).astype(np.float32)
    chance = min(1.0, mean_seen / max(1, n_items))
    had = rng.random((n_users, n_items)) < chance
    had[-1:] = False
    indptr = np.concatenate([[0], np.cumsum(had.sum(axis=1))]).astype(np.int64)
    seen = Csr(indptr, np.nonzero(had)[1].astype(np.int32))
    codes = np.where(np.arange(n_items) % 7 == 6, -1, np.arange(n_items) % 3).astype(np.int32)
    features = items / np.linalg.norm(items, axis=1, keepdims=True)
    return Artifact(
        manifest=Manifest(
            "factors",
            "bpr",
            n_users,
            n_items,
            width,
            fold_in={"default": "map"},
            columns={"title": "text", "category": "category", "price": "number"},
        ),
        user_ids=Ids.pack([f"u{row}" for row in range(n_users)], "user"),
        item_ids=Ids.pack([f"i{row}" for row in range(n_items)], "item"),
        seen=seen,
        counts=had.sum(axis=0).astype(np.int64),
        users=users,
        items=items,
        columns={
            "title": Strings.of(f"Item {row}" for row in range(n_items)),
            "category": Category(codes, ("a", "b", "c")),
            "price": np.arange(1, n_items + 1, dtype=np.float64),
        },
        features={"text": features},
        fold_in={
            "map": np.eye(width, dtype=np.float32),
            "gram": (items.T @ items * 0.1 + np.eye(width)).astype(np.float32),
            "scale": np.ones(1, np.float32),
        },
    )
