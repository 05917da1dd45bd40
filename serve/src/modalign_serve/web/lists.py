"""Pages with lists: for a user or a taste, by one model or by two."""

from __future__ import annotations

import secrets
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from modalign_serve.http.http import Answer, Call
from modalign_serve.ranker.why import Why
from modalign_serve.service.models import Served
from modalign_serve.web.forms import SIZES, State
from modalign_serve.web.showing import (
    BASES,
    SEGMENTS,
    Interest,
    Shower,
    Shown,
    by_interest,
    cards,
    interests_shown,
)
from modalign_serve.web.site import (
    Site,
    category_column,
    known_alone,
    read_of,
    rows_of,
    some_users,
    takes_items,
    to,
    trouble_with,
)

CHOICES = 24
FOUND = 48
HAD = 12
STANDING_FOR = 4
DEPTH = 100
"""Places of the other list that are looked through for an item."""


class Lists:
    """Pages with lists.

    Args:
        site: what they share with the others.
    """

    def __init__(self, site: Site) -> None:
        self.site = site

    async def recommend(self, call: Call) -> Answer:
        """For whom, the list, why, and what to click."""
        state = self.site.state(call)
        served = self.site.service.models.get(state.model)
        trouble = trouble_with(served, state)
        if trouble:
            return await self._start(served, replace(state, user=""), trouble, 404)
        state = known_alone(served, state)
        if not state.user and not state.liked:
            return await self._start(served, state, "", 200)
        if not state.user and not takes_items(served):
            told = f"{served.name} has no way from items to a taste: choose a user."
            return await self._start(served, replace(state, liked=()), told, 409)
        shower = Shower(served, state)
        found = await self.site.in_thread(self._listed, shower, state)
        choices = [] if state.user else await self._choices(shower, state)
        return self.site.page(
            "recommend", state, choices=choices, asked_of=_asked_of(served),
            liked=shower.by_id(state.liked), **found,
        )  # fmt: skip

    async def _start(self, served: Served, state: State, trouble: str, status: int) -> Answer:
        shower = Shower(served, state)
        choices = await self._choices(shower, state) if takes_items(served) else []
        return self.site.page(
            "start", state, status=status, link="recommend", choices=choices, trouble=trouble,
            users=some_users(served), n_users=served.ranker.artifact.n_users,
            n_items=len(served.ranker.catalogue),
        )  # fmt: skip

    async def _choices(self, shower: Shower, state: State) -> list[Shown]:
        """Items to click: what is searched for, or popular ones of all categories."""
        served = shower.served
        if state.q:
            rows = await self.site.in_thread(self.site.found, served, state.q, FOUND)
            return shower.all(rows)
        column = category_column(served)
        limit = {}
        if column is not None:
            limit = {column[0]: -(-CHOICES // max(1, len(column[1].names)))}
        ask = partial(
            served.ranker.recommend_for_items, [], CHOICES, exclude=state.liked, at_most_per=limit
        )
        return shower.all(rows_of(await self.site.in_thread(ask)))

    async def somebody(self, call: Call) -> Answer:
        """Any user."""
        state = self.site.state(call)
        users = self.site.service.models.get(state.model).ranker.artifact.user_ids
        if not len(users):
            return to(state.to("recommend"))
        user = users[secrets.randbelow(len(users))]
        page = "compare" if state.other else "recommend"
        return to(State(state.model, user, other=state.other).to(page))

    async def search(self, call: Call) -> Answer:
        """Items by title."""
        state = self.site.state(call)
        served = self.site.service.models.get(state.model)
        shower = Shower(served, state)
        found: list[Shown] = []
        if state.q:
            rows = await self.site.in_thread(self.site.found, served, state.q, FOUND)
            found = shower.all(rows)
        return self.site.page(
            "search", state, found=found, most=FOUND, likes=takes_items(served),
            n_items=len(served.ranker.catalogue),
        )  # fmt: skip

    async def compare(self, call: Call) -> Answer:
        """The same person's lists by two models."""
        state, models = self.site.state(call), self.site.service.models
        served = models.get(state.model)
        others = [name for name in models.names() if name != state.model]
        if others and state.other in ("", state.model):
            state = replace(state, other=others[0])
        users = some_users(served)
        if not others or not (state.user or state.liked):
            return self.site.page(
                "compare", state, sides=[], others=others, users=users, common=0, liked=[]
            )
        sides = [await self._side(one, state) for one in (served, models.get(state.other))]
        common = _marked(sides, state.k)
        unknown = all(side["trouble"] for side in sides)
        liked = Shower(served, state).by_id(state.liked)
        return self.site.page(
            "compare", state, status=404 if unknown else 200, sides=sides, others=others,
            users=users, common=common, liked=liked,
        )  # fmt: skip

    async def _side(self, served: Served, state: State) -> dict[str, Any]:
        side = {
            "name": served.name,
            "kind": served.ranker.artifact.manifest.model,
            "trouble": trouble_with(served, state),
        }
        if side["trouble"]:
            return side
        own = known_alone(served, state)
        if not own.user and not own.liked:
            return {**side, "trouble": f"{served.name} knows none of these items."}
        if not own.user and not takes_items(served):
            return {**side, "trouble": f"{served.name} has no way from items to a taste."}
        shower = Shower(served, replace(own, model=served.name))
        found = await self.site.in_thread(self._listed, shower, own, DEPTH)
        return {**side, "missing": len(state.liked) - len(own.liked), **found}

    def _listed(self, shower: Shower, state: State, depth: int = 0) -> dict[str, Any]:
        """A list with its reasons, and what it rests on."""
        ranker, catalogue = shower.served.ranker, shower.catalogue
        rules, k = _rules(shower.served, state), max(state.k, depth)
        if state.user:
            ranked = ranker.recommend([state.user], k, **rules)
            had = catalogue.find(ranker.history(state.user))
            had = had[had >= 0]
            why = partial(ranker.explain, user=state.user, n=3)
        else:
            ranked = ranker.recommend_for_items(list(state.liked), k, **rules)
            had = catalogue.find(list(state.liked))
            why = partial(ranker.explain, items=state.liked, n=3)
        basis = ranked.basis[0]
        rows = rows_of(ranked)[: state.k]
        ids = catalogue.ids(np.array(rows, np.int64))
        whys: list[Why] = [] if basis == "popular" else [why(one) for one in ids]
        read = read_of(shower, state, had)
        factors = self.site.interests(shower.served)
        interests: list[Interest] = []
        if factors is not None and whys and len(read):
            cells = factors.cells(read[read < catalogue.n_trained])
            whys = by_interest(whys, rows, cells)
            interests = interests_shown(shower, whys, cells, STANDING_FOR)
        segments = list(whys[0].parts) if whys else []
        return {
            "cards": cards(shower, rows, ranked.scores[0, : len(rows)].tolist(), whys, read),
            "basis": BASES[basis],
            "had": shower.all(had[:HAD]),
            "n_had": len(had),
            "deep": ranked.ids(),
            "interests": interests,
            "segments": [(name, SEGMENTS.get(name, name)) for name in segments],
        }


def _asked_of(served: Served) -> dict[str, Any]:
    """What can be asked of a model's lists."""
    column = category_column(served)
    return {
        "sizes": SIZES,
        "mixes": served.ranker.artifact.items is not None,
        "column": column[0] if column is not None else "",
        "names": sorted(column[1].names) if column is not None else (),
    }


def _rules(served: Served, state: State) -> dict[str, Any]:
    column = category_column(served)
    only = state.only and column is not None and state.only in column[1].names
    mixes = served.ranker.artifact.items is not None
    return {
        "diversity": state.diversity if mixes else 0.0,
        "where": {column[0]: state.only} if only and column is not None else None,
    }


def _marked(sides: list[dict[str, Any]], k: int) -> int:
    """Tell at each item its place in the other list; how many stand in both."""
    if any(side["trouble"] for side in sides):
        return 0
    common = 0
    for side, other in ((sides[0], sides[1]), (sides[1], sides[0])):
        places = {one: place + 1 for place, one in enumerate(other["deep"])}
        marked = []
        for one in side["cards"]:
            place = places.get(one.item.id)
            words = f"number {place} there" if place else f"not among the first {DEPTH} there"
            both = place is not None and place <= k
            common += both
            marked.append(replace(one, there=words, mark="both" if both else ""))
        side["cards"] = marked
    return common // 2
