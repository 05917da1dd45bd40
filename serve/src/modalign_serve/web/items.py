"""Pages of single items: what is known of one, whom it reaches, and new ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from modalign_serve.errors import Failure, InputError
from modalign_serve.http.http import Answer, Call
from modalign_serve.http.routes import IMAGES
from modalign_serve.ranker.interests import Interests
from modalign_serve.ranker.ranker import Ranked
from modalign_serve.web import adding, card, render
from modalign_serve.web.door import form_of
from modalign_serve.web.forms import Form, State, read_query
from modalign_serve.web.showing import Card, Shower, by_interest, cards, picture_path
from modalign_serve.web.site import (
    Site,
    known_alone,
    read_of,
    rows_of,
    takes_items,
    to,
    trouble_with,
)

REACHED = 20
ASKED = 1000
SHOWN_USERS = 5
SUGGESTED = 60
HEIGHT = 64
YEAR = ((b"cache-control", b"private, max-age=31536000, immutable"),)
HOUR = ((b"cache-control", b"private, max-age=3600"),)


class Items:
    """Pages of single items, and of a model.

    Args:
        site: what they share with the others.
    """

    def __init__(self, site: Site) -> None:
        self.site = site

    async def item(self, call: Call) -> Answer:
        """All that is known of an item, what is like it, and why it would be in the list."""
        state, form = self.site.state(call), read_query(call.query)
        served = self.site.service.models.get(state.model)
        row = int(served.ranker.catalogue.rows([form.text("item")])[0])
        if trouble_with(served, state):
            state = replace(state, user="")
        state = known_alone(served, state)
        shower = Shower(served, state)
        factors = self.site.interests(served)
        found = await self.site.in_thread(_told, shower, state, row, factors)
        kept = [("item", form.text("item"))]
        return self.site.page("item", state, kept=kept, likes=takes_items(served), **found)

    async def reach(self, call: Call) -> Answer:
        """Whose lists an item stands in, with and without it."""
        state, form = self.site.state(call), read_query(call.query)
        served = self.site.service.models.get(state.model)
        row = int(served.ranker.catalogue.rows([form.text("item")])[0])
        found = await self.site.in_thread(_reached, Shower(served, state), row)
        kept, added = [("item", form.text("item"))], form.text("added") == "1"
        return self.site.page("reach", state, kept=kept, k=REACHED, added=added, **found)

    async def new(self, call: Call) -> Answer:
        """The form for a new item."""
        return self._form(self.site.state(call), read_query(call.query))

    def _form(
        self, state: State, form: Form, trouble: Failure | None = None, status: int = 200
    ) -> Answer:
        service = self.site.service
        served = service.models.get(state.model)
        known = rows_of(served.ranker.recommend_for_items([], SUGGESTED))
        return self.site.page(
            "new", state, status=status, form=form, trouble=trouble,
            known=Shower(served, state).all(known),
            way=adding.way_of(served, service.encoder is not None),
            columns=adding.columns_of(served), most=service.settings.max_body,
            suggested=f"new-{service.new_items.count(served) + 1}",
        )  # fmt: skip

    async def add(self, call: Call) -> Answer:
        """Put a new item into everybody's ranking."""
        form, service = form_of(call), self.site.service
        state = State.of(form, service.models.names()[0])
        served = service.models.get(state.model)
        try:
            item = adding.item_of(served, form, service.encoder is not None)
            await service.add_item(served, item)
        except Failure as error:
            return self._form(state, form, error, error.status)
        except InputError as error:
            told = Failure(422, error.expected, error.got, error.fix)
            return self._form(state, form, told, 422)
        return to(State(state.model).to("reach", ("item", item.item_id), ("added", "1")))

    async def picture(self, call: Call) -> Answer:
        """An item's picture, from the artifact's own folder."""
        form = read_query(call.query)
        served = self.site.service.models.get(form.text("model"))
        row = int(served.ranker.catalogue.rows([form.text("item")])[0])
        path = picture_path(served, row)
        if path is None:
            raise Failure(404, "an item with a picture", "one without", "ask for another item")
        headers = [*render.HEADERS, *(YEAR if form.text("v") else HOUR)]
        return Answer(200, path, IMAGES[path.suffix.lower()], headers)

    async def card(self, call: Call) -> Answer:
        """What the artifact says of itself."""
        state, service = self.site.state(call), self.site.service
        served = service.models.get(state.model)
        manifest = served.ranker.artifact.manifest
        return self.site.page(
            "card", state, served=served, manifest=manifest,
            share=service.models.shares[served.name], added=service.new_items.count(served),
            **card.tables(manifest),
        )  # fmt: skip


def _told(shower: Shower, state: State, row: int, factors: Interests | None) -> dict[str, Any]:
    ranker, catalogue = shower.served.ranker, shower.catalogue
    one = catalogue.id(row)
    alike: list[Card] = []
    if catalogue.artifact.items is not None:
        near = ranker.similar_items([one], 8)
        rows = rows_of(near)
        scores = near.scores[0, : len(rows)].tolist()
        alike = cards(shower, rows, scores, [], np.zeros(0, np.int64))
    why = None
    if state.user or (state.liked and takes_items(shower.served)):
        had = catalogue.find(ranker.history(state.user) if state.user else list(state.liked))
        had = had[(had >= 0) & (had != row)]
        if len(had):
            told = ranker.explain(one, user=state.user or None, items=state.liked, n=3)
            read = read_of(shower, state, had)
            if factors is not None and len(read):
                (told,) = by_interest([told], [row], factors.cells(read))
            why = cards(shower, [row], [told.score], [told], read)[0]
    record = catalogue.record(row).items()
    return {
        "item": shower.of(row),
        "record": [(k, v) for k, v in record if v is not None and k not in ("image", shower.title)],
        "alike": alike,
        "why": why,
        "is_new": row >= catalogue.n_trained,
    }


def _reached(shower: Shower, row: int) -> dict[str, Any]:
    ranker, catalogue = shower.served.ranker, shower.catalogue
    one = catalogue.id(row)
    reach = ranker.reach(one, REACHED, ASKED)
    first = reach.users[:SHOWN_USERS]
    users = []
    if first:
        names = [user for user, _ in first]
        after = ranker.recommend(names, REACHED)
        before = ranker.recommend(names, REACHED, exclude=[one])
        for place, (user, at) in enumerate(first):
            had = catalogue.find(ranker.history(user))
            users.append(
                {
                    "id": user,
                    "place": at,
                    "had": shower.all(had[:5]),
                    "before": shower.all(_shown(before, place, at)),
                    "after": shower.all(_shown(after, place, at)),
                    "from": max(1, at - 2),
                }
            )
    near: Sequence[Any] = []
    if catalogue.artifact.items is not None:
        near = shower.all(rows_of(ranker.similar_items([one], 6)))
    counts = np.bincount([at for _, at in reach.users], minlength=REACHED + 1)[1:]
    return {
        "item": shower.of(row), "asked": reach.asked, "reached": len(reach.users),
        "bars": _heights(counts), "users": users, "alike": near,
    }  # fmt: skip


def _heights(counts: np.ndarray) -> list[tuple[int, int, float]]:
    """Place, count and the height of its bar."""
    most = max(1, int(counts.max(initial=0)))
    return [(at + 1, n, round(HEIGHT * n / most, 1)) for at, n in enumerate(counts.tolist())]


def _shown(ranked: Ranked, place: int, at: int) -> list[int]:
    """Five items of a list, around the place of one of them."""
    rows = ranked.rows[place][max(0, at - 3) :][:5]
    return [int(row) for row in rows if row >= 0]
