"""`modalign explain`: what a model says of a user's interests, as a document and as a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import torch
from torch import Tensor

from modalign.core import devices
from modalign.core.explain import ContentInterests, Explains, Interests, overlap, plan_entropy
from modalign.core.files import write_aside
from modalign.core.sparse import csr_tensor
from modalign.data.dataset import Dataset
from modalign.errors import ConfigError, DataError
from modalign.experiments.fitted import FittedModel
from modalign.report.gallery import Pictures
from modalign.report.lists import liked

AVERAGED = 200
"""Users, evenly spaced among those with a history, over whom averages are taken."""
BLOCK = 50
WORDS = 10
"""Words in which factors are compared, as in the paper's table."""
SHOWN = 10
"""Items of the history shown on the page."""


def interests(
    fitted: FittedModel, user_ids: Sequence[str], n_items: int = 3, n_words: int = 10
) -> dict[str, Any]:
    """What the model says of users' interests, with names for all rows: plain values, for JSON.

    Args:
        fitted: a model that explains.
        user_ids: of users with a history.
        n_items: best items of a rating factor.
        n_words: best words of a content factor.

    Returns:
        model, data, `users` (for each: liked, rating factors with items and gates, and for each
        modality the content factors with words, the plan, its entropy in bits and the overlap of
        the factors' words), and `average`: entropy and overlap over up to 200 users.

    Raises:
        ConfigError: the model does not explain.
        DataError: an unknown user id, or a user of whom nothing is known.
    """
    model, dataset = fitted.model, fitted.dataset
    if not isinstance(model, Explains):
        raise ConfigError(
            "a model that explains the interests of users",
            fitted.spec.name,
            "explain a run of bandvae; `modalign recommend` lists what any model recommends",
        )
    rows = dataset.users.rows(user_ids)
    known = dataset.history.read()
    counts = np.diff(known.indptr)
    if not counts[rows].all():
        who = user_ids[int(np.flatnonzero(counts[rows] == 0)[0])]
        raise DataError(
            "a user with items in training, or known in advance", f"user {who!r} without any",
            "ask for another user",
        )  # fmt: skip
    model.eval()
    some = np.flatnonzero(counts)
    some = some[np.linspace(0, len(some) - 1, min(AVERAGED, len(some))).astype(np.int64)]
    told = _ask(model, known[rows], n_items, n_words)
    return {
        "model": fitted.spec.name,
        "data": dataset.fingerprint,
        "users": [
            _person(dataset, user_id, told, place, n_words)
            for place, user_id in enumerate(user_ids)
        ],
        "average": {"users": len(some), **_averages(model, known[some])},
    }


def _ask(model: Any, matrix: Any, n_items: int, n_words: int) -> Interests:
    device = devices.of(model)
    history = csr_tensor(
        torch.from_numpy(matrix.indptr.astype(np.int64)),
        torch.from_numpy(matrix.indices.astype(np.int64)),
        torch.ones(matrix.nnz),
        matrix.shape,
    )
    found: Interests = model.explain(history.to(device), n_items, n_words)
    return found


def _averages(model: Any, matrix: Any) -> dict[str, Any]:
    """Mean entropy of plans and overlap of words over users, by modality."""
    sums: dict[str, list[Tensor]] = {}
    for start in range(0, matrix.shape[0], BLOCK):
        for one in _ask(model, matrix[start : start + BLOCK], 1, WORDS).content:
            values = torch.stack([plan_entropy(one.plan), overlap(one.tops.index)], 1)
            sums.setdefault(one.modality, []).append(values)
    means = {name: torch.cat(parts).mean(0).tolist() for name, parts in sums.items()}
    return {
        "modalities": [
            {"modality": name, "entropy_bits": bits, "word_overlap": shared}
            for name, (bits, shared) in means.items()
        ]
    }


def _person(
    dataset: Dataset, user_id: str, told: Interests, place: int, n_words: int
) -> dict[str, Any]:
    before = liked(dataset, user_id)
    had = {one["item"] for one in before}
    factors = []
    for k, (items, scores) in enumerate(
        zip(told.ratings.index[place].tolist(), told.ratings.scores[place].tolist(), strict=True)
    ):
        gates = {
            one.modality: float(one.rating_gates[place, k])
            for one in told.content
            if one.rating_gates is not None
        }
        shown = [
            {**item, "score": score, "liked": item["item"] in had}
            for item, score in zip(_items(dataset, items), scores, strict=True)
        ]
        factors.append({"items": shown, "gates": gates})
    return {
        "user": user_id,
        "liked": before,
        "factors": factors,
        "content": [_content(dataset, one, place) for one in told.content],
    }


def _content(dataset: Dataset, one: ContentInterests, place: int) -> dict[str, Any]:
    index = one.tops.index[place]
    factors = []
    for j, columns in enumerate(index.tolist()):
        words: list[dict[str, Any]]
        if one.words is not None:
            words = [{"word": one.words[column]} for column in columns]
        else:
            near = _items(dataset, one.examples[index[j]].tolist())
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


def _items(dataset: Dataset, rows: Sequence[int]) -> list[dict[str, Any]]:
    titles = dataset.titles()
    ids = dataset.items.ids(np.array(rows, np.int64))
    return [
        {"item_id": one, "title": titles[row], "item": row}
        for one, row in zip(ids, rows, strict=True)
    ]


def without_rows(document: Any) -> Any:
    """The document without the rows of items, which mean nothing outside; for JSON.

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
    """The document as one self-contained HTML page with the items' pictures.

    Args:
        document: of `interests`.
        dataset: whose pictures are shown.
        out: HTML file; written aside first.

    Raises:
        DataError: `out` is a folder.
    """
    out = Path(out)
    if out.is_dir():
        raise DataError("a file to write the page to", f"{out}, which is a folder", "name a file")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    html = environment.get_template("interests.html").render(
        document=document, pictures=Pictures(dataset), dataset=dataset, shown=SHOWN
    )
    with write_aside(out) as aside:
        aside.write_text(html, encoding="utf-8")
    return out
