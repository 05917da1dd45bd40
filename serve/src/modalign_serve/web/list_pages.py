"""Pages with lists: for a user or for liked items, from one model or from two."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import Any

from modalign_serve.http.http import Answer, Call
from modalign_serve.ranker.people import Person
from modalign_serve.ranker.rules import Rules
from modalign_serve.ranker.why import Why
from modalign_serve.service.served import Served
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
    find_user,
    known_items_only,
    some_users,
    to,
)

CHOICES = 24
FOUND = 48
HAD = 12
STANDING_FOR = 4
DEPTH = 100
"""Length of the other list in which an item is looked for."""


class ListPages:
    """Pages with lists.

    Args:
        site: that they share with the other pages.
    """

    def __init__(self, site: Site) -> None:
        self.site = site

    async def recommend(self, call: Call) -> Answer:
        """The list of a user or of liked items, with explanations."""
        state = self.site.state(call)
        served = self.site.service.models.get(state.model)
        person, trouble = find_user(served, state)
        if trouble:
            return await self._start(served, replace(state, user=""), trouble, 404)
        state = known_items_only(served, state)
        if not state.user and not state.liked:
            return await self._start(served, state, "", 200)
        if not state.user and not served.ranker.takes_items:
            trouble = f"{served.name} cannot recommend from items: choose a user."
            return await self._start(served, replace(state, liked=()), trouble, 409)
        shower = Shower(served, state)
        found = await self.site.in_thread(self._listed, shower, state, person)
        choices = [] if state.user else await self._choices(shower, state)
        return self.site.page(
            "recommend", state, choices=choices, asked_of=_asked_of(served),
            liked=shower.by_id(state.liked), **found,
        )  # fmt: skip

    async def _start(self, served: Served, state: State, trouble: str, status: int) -> Answer:
        shower = Shower(served, state)
        choices = await self._choices(shower, state) if served.ranker.takes_items else []
        return self.site.page(
            "start", state, status=status, link="recommend", choices=choices, trouble=trouble,
            users=some_users(served), n_users=served.ranker.manifest.n_users,
            n_items=len(served.ranker.catalogue),
        )  # fmt: skip

    async def _choices(self, shower: Shower, state: State) -> list[Shown]:
        """Items to choose from: those searched for, or popular ones of all categories."""
        served = shower.served
        if state.q:
            rows = await self.site.in_thread(self.site.found, served, state.q, FOUND)
            return shower.all(rows)
        column = category_column(served)
        limit = {}
        if column is not None:
            limit = {column[0]: -(-CHOICES // max(1, len(column[1].names)))}
        rules = Rules(exclude=state.liked, at_most_per=limit)
        ask = served.ranker.recommend_for_items
        return shower.all((await self.site.in_thread(ask, [], CHOICES, rules)).kept())

    async def random_user(self, call: Call) -> Answer:
        """The list of a random user."""
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
            "search", state, found=found, most=FOUND, likes=served.ranker.takes_items,
            n_items=len(served.ranker.catalogue),
        )  # fmt: skip

    async def compare(self, call: Call) -> Answer:
        """The lists of one user from two models."""
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
        person, trouble = find_user(served, state)
        own = known_items_only(served, state)
        if not own.user and not own.liked:
            trouble = f"{served.name} has none of these items."
        elif not own.user and not served.ranker.takes_items:
            trouble = f"{served.name} cannot recommend from items."
        side = {"name": served.name, "kind": served.ranker.manifest.model, "trouble": trouble}
        if trouble:
            return side
        shower = Shower(served, replace(own, model=served.name))
        found = await self.site.in_thread(self._listed, shower, own, person, DEPTH)
        return {**side, "missing": len(state.liked) - len(own.liked), **found}

    def _listed(
        self, shower: Shower, state: State, person: Person | None, depth: int = 0
    ) -> dict[str, Any]:
        """A list with its explanations; without a person, for the liked items."""
        ranker, catalogue = shower.served.ranker, shower.catalogue
        if person is None:
            person = ranker.person_of_items(list(state.liked))
        rules = _rules(shower.served, state)
        ranked = ranker.recommend_people([person], max(state.k, depth), rules)
        basis, read = ranked.basis[0], person.history
        rows = ranked.kept()[: state.k].tolist()
        whys: list[Why] = []
        if basis != "popular":
            whys = [ranker.explain_person(one, person, 3) for one in catalogue.ids(rows)]
        factors = self.site.interests(shower.served)
        interests: list[Interest] = []
        if factors is not None and whys and len(read):
            cells = factors.cells(read)
            whys = by_interest(whys, rows, cells)
            interests = interests_shown(shower, whys, cells, STANDING_FOR)
        segments = list(whys[0].parts) if whys else []
        return {
            "cards": cards(shower, rows, ranked.scores[0, : len(rows)].tolist(), whys, read),
            "basis": BASES[basis],
            "had": shower.all(person.seen[:HAD]),
            "n_had": len(person.seen),
            "deep": ranked.ids(),
            "interests": interests,
            "segments": [(name, SEGMENTS.get(name, name)) for name in segments],
        }


def _asked_of(served: Served) -> dict[str, Any]:
    """The options of a model's lists."""
    column = category_column(served)
    return {
        "sizes": SIZES,
        "mixes": served.ranker.has_vectors,
        "column": column[0] if column is not None else "",
        "names": sorted(column[1].names) if column is not None else (),
    }


def _rules(served: Served, state: State) -> Rules:
    column = category_column(served)
    only = state.only and column is not None and state.only in column[1].names
    return Rules(
        diversity=state.diversity if served.ranker.has_vectors else 0.0,
        where={column[0]: state.only} if only and column is not None else None,
    )


def _marked(sides: list[dict[str, Any]], k: int) -> int:
    """Add to each item its place in the other list; returns how many items are in both."""
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
