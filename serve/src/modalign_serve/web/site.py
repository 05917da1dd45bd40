"""What all pages share: the service they ask, how they are printed, what an address says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from modalign_serve.artifact.artifact import Category
from modalign_serve.errors import Failure
from modalign_serve.http.http import Answer, Call
from modalign_serve.ranker.interests import Interests, interests_of
from modalign_serve.ranker.ranker import Ranked
from modalign_serve.service.models import Served
from modalign_serve.service.service import Service
from modalign_serve.web import render
from modalign_serve.web.forms import State, read_query
from modalign_serve.web.showing import Shower
from modalign_serve.web.titles import Titles

T = TypeVar("T")


class Site:
    """The service as its pages see it.

    Args:
        service: what they ask.
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        self._titles: dict[str, Titles] = {}
        self._interests: dict[str, Interests | None] = {}

    def state(self, call: Call) -> State:
        """For whom and how a list is asked."""
        return State.of(read_query(call.query), self.service.models.names()[0])

    def page(
        self, template: str, state: State, *, status: int = 200, link: str = "", **values: Any
    ) -> Answer:
        """A page from its template.

        Args:
            template: its name without the suffix.
            state: what its links keep.
            status: of HTTP.
            link: name of the page's address, where that is another.
            values: for the template; `kept` are pairs that links to other models keep.
        """
        manifest = self.service.models.get(state.model).ranker.artifact.manifest
        return render.page(
            f"{template}.html",
            status,
            state=state,
            name=link or template,
            models=[(one.name, one.ranker.artifact.manifest.model) for one in self.service.models],
            locked=self.service.keys is not None,
            synthetic=manifest.synthetic,
            kept=values.pop("kept", ()),
            **values,
        )

    def plain(self, name: str, status: int, **values: Any) -> Answer:
        """A page that shows nothing of any model."""
        return render.page(
            f"{name}.html", status, state=None, name=name, models=(), locked=False,
            synthetic=False, kept=(), **values,
        )  # fmt: skip

    def failed(self, failure: Failure, request_id: str) -> Answer:
        """A failure as a page."""
        return self.plain("failed", failure.status, failure=failure, request_id=request_id)

    async def in_thread(self, ask: Callable[..., T], *words: Any) -> T:
        """Ask what may take long, while the event loop goes on."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.service.threads, ask, *words)

    def found(self, served: Served, asked: str, n: int) -> list[int]:
        """Rows of at most n items whose title holds the words asked for."""
        known = self._titles.get(served.version)
        if known is None:
            self._titles = self._still_served(self._titles)
            known = self._titles[served.version] = Titles(served.ranker.catalogue)
        return known.search(served.ranker.catalogue, asked, n)

    def interests(self, served: Served) -> Interests | None:
        """What tells the interests of a model's people, if it can."""
        if served.version not in self._interests:
            self._interests = self._still_served(self._interests)
            self._interests[served.version] = interests_of(served.ranker.artifact)
        return self._interests[served.version]

    def _still_served(self, held: dict[str, T]) -> dict[str, T]:
        versions = {one.version for one in self.service.models}
        return {version: one for version, one in held.items() if version in versions}


def trouble_with(served: Served, state: State) -> str:
    """Why there is no list for this user, or nothing; asking also folds in what feedback told."""
    known = not state.user or served.knows(state.user)
    return "" if known else f"{served.name} knows no user {state.user!r}."


def to(address: str, *headers: tuple[bytes, bytes]) -> Answer:
    """Go on to an address beside this one, by GET."""
    return Answer(303, b"", "", [(b"location", address.encode()), *headers, *render.HEADERS])


def rows_of(ranked: Ranked) -> list[int]:
    """Rows of the first list."""
    rows = ranked.rows[0]
    found: list[int] = rows[rows >= 0].tolist()
    return found


def known_alone(served: Served, state: State) -> State:
    """Without liked items that the model does not know: they may be another model's."""
    if not state.liked:
        return state
    known = served.ranker.catalogue.find(list(state.liked)) >= 0
    kept = [one for one, here in zip(state.liked, known.tolist(), strict=True) if here]
    return replace(state, liked=tuple(kept))


def category_column(served: Served) -> tuple[str, Category] | None:
    """The first column of categories, by which lists are filtered."""
    columns = served.ranker.artifact.columns.items()
    return next(((name, one) for name, one in columns if isinstance(one, Category)), None)


def takes_items(served: Served) -> bool:
    """Whether the model can make a list from liked items alone."""
    manifest = served.ranker.artifact.manifest
    return manifest.kind != "factors" or bool(manifest.fold_in.get("default"))


def read_of(shower: Shower, state: State, had: np.ndarray) -> np.ndarray:
    """What the model reads of a person, where that is less than what is hidden."""
    artifact = shower.catalogue.artifact
    row = artifact.user_ids.row(state.user) if state.user else -1
    return had if artifact.history is None or row < 0 else np.asarray(artifact.history.row(row))


def some_users(served: Served, n: int = 12) -> Sequence[tuple[str, int]]:
    """Users evenly spaced in the artifact, each with how many items are known of them."""
    artifact = served.ranker.artifact
    rows = np.unique(np.linspace(0, max(0, artifact.n_users - 1), n).astype(np.int64))
    rows = rows[rows < artifact.n_users]
    counts = artifact.seen.indptr[rows + 1] - artifact.seen.indptr[rows]
    return list(zip(artifact.user_ids.take(rows), counts.tolist(), strict=True))
