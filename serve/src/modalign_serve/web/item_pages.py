"""Pages of single items: its metadata, the users it reaches, and new items."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from modalign_serve.errors import Failure, InputError
from modalign_serve.http.http import Answer, Call
from modalign_serve.ranker.people import Person
from modalign_serve.ranker.ranker import Ranked
from modalign_serve.ranker.rules import Rules
from modalign_serve.service import requests
from modalign_serve.web import adding, card, templating
from modalign_serve.web.door import form_of
from modalign_serve.web.forms import Form, State, read_query
from modalign_serve.web.showing import ListEntry, Shower, by_interest, cards
from modalign_serve.web.site import Site, find_user, known_items_only, to

REACHED = 20
ASKED = 1000
SHOWN_USERS = 5
SUGGESTED = 60
HEIGHT = 64
YEAR = ((b"cache-control", b"private, max-age=31536000, immutable"),)
HOUR = ((b"cache-control", b"private, max-age=3600"),)


class ItemPages:
    """Pages of single items, and of a model.

    Args:
        site: that they share with the other pages.
    """

    def __init__(self, site: Site) -> None:
        self.site = site

    async def item(self, call: Call) -> Answer:
        """Metadata of an item, similar items, and why it would be in the list."""
        state, form = self.site.state(call), read_query(call.query)
        served = self.site.service.models.get(state.model)
        row = int(served.ranker.catalogue.rows([form.text("item")])[0])
        person, trouble = find_user(served, state)
        state = known_items_only(served, replace(state, user="") if trouble else state)
        shower = Shower(served, state)
        found = await self.site.in_thread(self._described, shower, row, person)
        kept = [("item", form.text("item"))]
        return self.site.page("item", state, kept=kept, likes=served.ranker.takes_items, **found)

    def _described(self, shower: Shower, row: int, person: Person | None) -> dict[str, Any]:
        ranker, catalogue = shower.served.ranker, shower.catalogue
        one = catalogue.id(row)
        alike: list[ListEntry] = []
        if ranker.has_vectors:
            near = ranker.similar_items([one], 8)
            rows = near.kept().tolist()
            scores = near.scores[0, : len(rows)].tolist()
            alike = cards(shower, rows, scores, [], np.zeros(0, np.int64))
        if person is None and shower.state.liked and ranker.takes_items:
            person = ranker.person_of_items(list(shower.state.liked))
        why = None if person is None else self._why(shower, row, person)
        known = [
            (name, value) for name, value in catalogue.record(row).items() if value is not None
        ]
        return {
            "item": shower.of(row),
            "record": [pair for pair in known if pair[0] not in ("image", shower.title)],
            "alike": alike,
            "why": why,
            "is_new": row >= catalogue.n_trained,
        }

    def _why(self, shower: Shower, row: int, person: Person) -> ListEntry | None:
        read = person.history[person.history != row]
        if not len(read):
            return None
        why = shower.served.ranker.explain_person(shower.catalogue.id(row), person, 3)
        factors = self.site.interests(shower.served)
        if factors is not None:
            (why,) = by_interest([why], [row], factors.cells(read))
        return cards(shower, [row], [why.score], [why], read)[0]

    async def reach(self, call: Call) -> Answer:
        """The users who have an item in their list, and their lists with and without it."""
        state, form = self.site.state(call), read_query(call.query)
        served = self.site.service.models.get(state.model)
        row = int(served.ranker.catalogue.rows([form.text("item")])[0])
        rules = Rules(until=requests.deadline())
        found = await self.site.in_thread(_reached, Shower(served, state), row, rules)
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
        known = served.ranker.recommend_for_items([], SUGGESTED).kept()
        return self.site.page(
            "new", state, status=status, form=form, trouble=trouble,
            known=Shower(served, state).all(known),
            way=adding.way_of(served, service.encoder is not None),
            columns=adding.columns_of(served), most=service.settings.max_body,
            suggested=f"new-{served.ranker.catalogue.n_added + 1}",
        )  # fmt: skip

    async def add(self, call: Call) -> Answer:
        """Add a new item to all rankings."""
        form, service = form_of(call), self.site.service
        state = State.of(form, service.models.names()[0])
        served = service.models.get(state.model)
        try:
            item = adding.item_of(served, form, service.encoder is not None)
            await service.add_item(served, item)
        except Failure as error:
            return self._form(state, form, error, error.status)
        except InputError as error:
            failure = Failure(422, error.expected, error.got, error.fix)
            return self._form(state, form, failure, 422)
        return to(State(state.model).to("reach", ("item", item.item_id), ("added", "1")))

    async def picture(self, call: Call) -> Answer:
        """An item's picture, from the artifact.

        Raises:
            Failure: the item has none.
        """
        form = read_query(call.query)
        served = self.site.service.models.get(form.text("model"))
        row = int(served.ranker.catalogue.rows([form.text("item")])[0])
        found = await asyncio.to_thread(served.picture, row)
        if found is None:
            raise Failure(404, "an item with a picture", "one without", "ask for another item")
        headers = [*templating.HEADERS, *(YEAR if form.text("v") else HOUR)]
        return Answer(200, *found, headers)

    async def card(self, call: Call) -> Answer:
        """The description of the artifact."""
        state, service = self.site.state(call), self.site.service
        served = service.models.get(state.model)
        manifest = served.ranker.manifest
        pictures = served.ranker.artifact.pictures
        return self.site.page(
            "card", state, served=served, manifest=manifest,
            share=service.models.shares[served.name], added=served.ranker.catalogue.n_added,
            **card.tables(manifest, 0 if pictures is None else len(pictures)),
        )  # fmt: skip


def _reached(shower: Shower, row: int, rules: Rules) -> dict[str, Any]:
    ranker, catalogue = shower.served.ranker, shower.catalogue
    one = catalogue.id(row)
    reach = ranker.reach(one, REACHED, ASKED, rules)
    first = reach.users[:SHOWN_USERS]
    users = []
    if first:
        names = [user for user, _ in first]
        after = ranker.recommend(names, REACHED)
        before = ranker.recommend(names, REACHED, Rules(exclude=[one]))
        for place, (user, at) in enumerate(first):
            had = ranker.person(user).seen
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
    if ranker.has_vectors:
        near = shower.all(ranker.similar_items([one], 6).kept())
    counts = np.bincount([at for _, at in reach.users], minlength=REACHED + 1)[1:]
    most = max(1, int(counts.max(initial=0)))
    bars = [(at + 1, n, round(HEIGHT * n / most, 1)) for at, n in enumerate(counts.tolist())]
    return {
        "item": shower.of(row), "asked": reach.asked, "reached": len(reach.users),
        "bars": bars, "users": users, "alike": near,
    }  # fmt: skip


def _shown(ranked: Ranked, place: int, at: int) -> list[int]:
    """Five items of a list, around the place of one of them."""
    rows = ranked.rows[place][max(0, at - 3) :][:5]
    return [int(row) for row in rows if row >= 0]
