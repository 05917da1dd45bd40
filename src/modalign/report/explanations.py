"""`modalign explain`: the interests that a model finds in a history, as JSON and as a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modalign.core import devices
from modalign.core.explain import ContentInterests, Explains, Explanation, overlap, plan_entropy
from modalign.core.sparse import from_scipy
from modalign.data.dataset import Dataset
from modalign.errors import ConfigError, DataError
from modalign.experiments.fitted import FittedModel
from modalign.report import html
from modalign.report.gallery import Pictures, liked, named

AVERAGED = 200
"""Users, evenly spaced among those with a history, over whom averages are taken."""
BLOCK = 50
WORDS = 10
"""Words by which factors are compared, as in the table of the BANDVAE paper."""
SHOWN = 10
"""Items of the history shown on the page."""


def explain_users(
    fitted: FittedModel, user_ids: Sequence[str], n_items: int = 3, n_words: int = 10
) -> dict[str, Any]:
    """The interests of users by a model, as plain values for JSON, with names for all rows.

    Args:
        fitted: a model that explains.
        user_ids: ids of users with a history.
        n_items: number of best items of a rating factor.
        n_words: number of best words of a content factor.

    Returns:
        model, data, `users` (for each: liked, rating factors with items and gates, and for each
        modality the content factors with words, the plan, its entropy in bits and the overlap of
        the factors' words), and `average`: entropy and overlap over up to 200 users.

    Raises:
        ConfigError: the model does not explain.
        DataError: an unknown user id, or a user without a history.
    """
    model, dataset = fitted.model, fitted.dataset
    if not isinstance(model, Explains):
        fix = "explain a run of bandvae or macridvae; `modalign recommend` works with any model"
        raise ConfigError("a model that explains interests", fitted.spec.name, fix)
    rows = dataset.users.rows(user_ids)
    known = dataset.history.read()
    counts = np.diff(known.indptr)
    if not counts[rows].all():
        who = user_ids[int(np.flatnonzero(counts[rows] == 0)[0])]
        raise DataError(
            "a user with training items or a known part", f"user {who!r} without any",
            "choose another user",
        )  # fmt: skip
    model.eval()
    some = np.flatnonzero(counts)
    some = some[np.linspace(0, len(some) - 1, min(AVERAGED, len(some))).astype(np.int64)]
    found = _explain(model, known[rows], n_items, n_words)
    return {
        "model": fitted.spec.name,
        "data": dataset.fingerprint,
        "users": [
            _person(dataset, user_id, found, place) for place, user_id in enumerate(user_ids)
        ],
        "average": {"users": len(some), **_averages(model, known[some])},
    }


def _explain(model: Any, matrix: Any, n_items: int, n_words: int) -> Explanation:
    history = from_scipy(matrix).to(devices.of(model))
    found: Explanation = model.explain(history, n_items, n_words)
    return found


def _averages(model: Any, matrix: Any) -> dict[str, Any]:
    """Mean entropy of plans and overlap of words over users, by modality."""
    sums: dict[str, list[Tensor]] = {}
    for start in range(0, matrix.shape[0], BLOCK):
        for one in _explain(model, matrix[start : start + BLOCK], 1, WORDS).content:
            values = torch.stack([plan_entropy(one.plan), overlap(one.tops.index)], 1)
            sums.setdefault(one.modality, []).append(values)
    means = {name: torch.cat(parts).mean(0).tolist() for name, parts in sums.items()}
    return {
        "modalities": [
            {"modality": name, "entropy_bits": bits, "word_overlap": shared}
            for name, (bits, shared) in means.items()
        ]
    }


def _person(dataset: Dataset, user_id: str, interests: Explanation, place: int) -> dict[str, Any]:
    before = liked(dataset, user_id)
    had = {one["item"] for one in before}
    ratings = interests.ratings
    factors = []
    for k, (items, scores) in enumerate(
        zip(ratings.index[place].tolist(), ratings.scores[place].tolist(), strict=True)
    ):
        gates = {
            one.modality: float(one.rating_gates[place, k])
            for one in interests.content
            if one.rating_gates is not None
        }
        shown = [
            {**item, "score": score, "liked": item["item"] in had}
            for item, score in zip(named(dataset, items), scores, strict=True)
        ]
        factors.append({"items": shown, "gates": gates})
    return {
        "user": user_id,
        "liked": before,
        "factors": factors,
        "content": [_content(dataset, one, place) for one in interests.content],
    }


def _content(dataset: Dataset, one: ContentInterests, place: int) -> dict[str, Any]:
    index = one.tops.index[place]
    factors = []
    for j, columns in enumerate(index.tolist()):
        words: list[dict[str, Any]]
        if one.words is not None:
            words = [{"word": one.words[column]} for column in columns]
        else:
            near = named(dataset, one.examples[index[j]].tolist())
            words = [
                {"word": f"#{c}", "example": item} for c, item in zip(columns, near, strict=True)
            ]
        for word, score in zip(words, one.tops.scores[place, j].tolist(), strict=True):
            word["score"] = score
        gate = None if one.content_gates is None else float(one.content_gates[place, j])
        factors.append({"words": words, "gate": gate})
    plan = one.plan[place : place + 1]
    return {
        "modality": one.modality,
        "factors": factors,
        "plan": plan[0].tolist(),
        "entropy_bits": float(plan_entropy(plan)),
        "word_overlap": float(overlap(index.unsqueeze(0))),
    }


def without_rows(document: Any) -> Any:
    """The document without the internal rows of items, for JSON.

    Example:
        >>> without_rows({"liked": [{"item_id": "a", "item": 3}]})
        {'liked': [{'item_id': 'a'}]}
    """
    if isinstance(document, dict):
        return {key: without_rows(value) for key, value in document.items() if key != "item"}
    if isinstance(document, list):
        return [without_rows(value) for value in document]
    return document


def write_page(document: dict[str, Any], dataset: Dataset, out: str | Path) -> Path:
    """Write the document as one self-contained HTML page with the items' pictures.

    Args:
        document: made by `explain_users`.
        dataset: data with the pictures of the items.
        out: HTML file; an earlier one is replaced when the new one is complete.

    Returns:
        `out`.

    Raises:
        DataError: `out` cannot be a file.
    """
    out = Path(out)
    html.check_target(out)
    page = html.render(
        "explanations.html",
        document=document,
        pictures=Pictures(dataset),
        dataset=dataset,
        shown=SHOWN,
    )
    return html.save(out, page)
