"""What all pages share: the service, templates, and the state in the address."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np

from modalign_serve.artifact.artifact import Category
from modalign_serve.errors import Failure, TooSlow, unavailable
from modalign_serve.http.http import Answer, Call
from modalign_serve.ranker.foldin import InterestEncoder, interests_of
from modalign_serve.ranker.people import Person
from modalign_serve.service.served import Served
from modalign_serve.service.service import Service
from modalign_serve.web import templating
from modalign_serve.web.forms import State, read_query
from modalign_serve.web.titles import Titles

T = TypeVar("T")


class Site:
    """The service as the pages see it.

    Args:
        service: that they show.
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        # By the served artifact: after a swap the old entry goes with it.
        self._titles: WeakKeyDictionary[Served, Titles] = WeakKeyDictionary()
        self._interests: WeakKeyDictionary[Served, InterestEncoder | None] = WeakKeyDictionary()

    def state(self, call: Call) -> State:
        """The state in the address of a page."""
        return State.of(read_query(call.query), self.service.models.names()[0])

    def page(
        self, template: str, state: State, *, status: int = 200, link: str = "", **values: Any
    ) -> Answer:
        """A page from its template.

        Args:
            template: its name without the suffix.
            state: that its links keep.
            status: of HTTP.
            link: name of the page in its address, if it differs from the template.
            **values: for the template; `kept` are pairs that links to other models keep.
        """
        manifest = self.service.models.get(state.model).ranker.manifest
        return templating.page(
            f"{template}.html",
            status,
            state=state,
            name=link or template,
            models=[(one.name, one.ranker.manifest.model) for one in self.service.models],
            locked=self.service.keys is not None,
            synthetic=manifest.synthetic,
            kept=values.pop("kept", ()),
            **values,
        )

    def plain(self, name: str, status: int, **values: Any) -> Answer:
        """A page about no model.

        Args:
            name: of the template and the page.
            status: of HTTP.
            **values: for the template.
        """
        return templating.page(
            f"{name}.html", status, state=None, name=name, models=(), locked=False,
            synthetic=False, kept=(), **values,
        )  # fmt: skip

    def failed(self, failure: Failure, request_id: str) -> Answer:
        """A failure as a page."""
        return self.plain("failed", failure.status, failure=failure, request_id=request_id)

    async def in_thread(self, ask: Callable[..., T], *words: Any) -> T:
        """Call a function that may take long in another thread.

        Raises:
            Failure: 503 if it takes too long.
        """
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self.service.threads, ask, *words)
        except TooSlow as error:
            raise unavailable("a page that takes too long to make", "try again later") from error

    def found(self, served: Served, asked: str, n: int) -> list[int]:
        """Rows of at most n items found by words of their title.

        Args:
            served: whose items.
            asked: the words, or an id.
            n: maximum number.
        """
        known = self._titles.get(served)
        if known is None:
            known = self._titles[served] = Titles(served.ranker.catalogue)
        return known.search(served.ranker.catalogue, asked, n)

    def interests(self, served: Served) -> InterestEncoder | None:
        """The interests of a model's users; None if it has none."""
        if served not in self._interests:
            self._interests[served] = interests_of(served.ranker.artifact)
        return self._interests[served]


def find_user(served: Served, state: State) -> tuple[Person | None, str]:
    """The user of a page, and why there is no list for that user, if so.

    Feedback about the user is folded in.
    """
    if not state.user:
        return None, ""
    person = served.find(state.user)
    return person, "" if person is not None else f"{served.name} has no user {state.user!r}."


def to(address: str, *headers: tuple[bytes, bytes]) -> Answer:
    """Redirect to an address beside this one, by GET."""
    return Answer(303, b"", "", [(b"location", address.encode()), *headers, *templating.HEADERS])


def known_items_only(served: Served, state: State) -> State:
    """The state without liked items that the model does not have, such as another model's."""
    if not state.liked:
        return state
    known = served.ranker.catalogue.find(list(state.liked)) >= 0
    kept = [one for one, here in zip(state.liked, known.tolist(), strict=True) if here]
    return replace(state, liked=tuple(kept))


def category_column(served: Served) -> tuple[str, Category] | None:
    """The first column of categories, by which lists can be filtered."""
    columns = served.ranker.columns.items()
    return next(((name, one) for name, one in columns if isinstance(one, Category)), None)


def some_users(served: Served, n: int = 12) -> Sequence[tuple[str, int]]:
    """Users evenly spaced in the artifact, each with the number of items they had."""
    artifact = served.ranker.artifact
    rows = np.unique(np.linspace(0, max(0, artifact.n_users - 1), n).astype(np.int64))
    rows = rows[rows < artifact.n_users]
    counts = artifact.seen.indptr[rows + 1] - artifact.seen.indptr[rows]
    return list(zip(artifact.user_ids.take(rows), counts.tolist(), strict=True))
