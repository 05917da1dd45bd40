"""Requests that arrive together are answered by one product of matrices.

The event loop reads all sockets that have data before it runs what was put off until then. Each
request for the plain list of a known user waits for that moment, so that under load one product
and one choice of the best serve many requests, and without load nobody waits for anybody.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple

from modalign_serve.ranker.ranker import Ranked
from modalign_serve.service.models import Served

MOST = 32
"""Requests in one product: beyond it the scores leave the processor's caches."""


class _Asked(NamedTuple):
    user: str
    answer: asyncio.Future[tuple[Ranked, int]]


class Batcher:
    """Gathers requests of one turn of the event loop.

    Args:
        measured: called with the model's name, the size of a batch and its seconds.
    """

    def __init__(self, measured: Callable[[str, int, float], None]) -> None:
        self._measured = measured
        self._asked: dict[tuple[Served, int, bool], list[_Asked]] = {}

    async def ask(self, served: Served, user: str, k: int, filter_seen: bool) -> tuple[Ranked, int]:
        """Lists of several users, and the place of this user's among them.

        Args:
            served: the model, which must know the user.
            user: an id.
            k: how many items.
            filter_seen: leave out what the user has seen.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[tuple[Ranked, int]] = loop.create_future()
        if not self._asked:
            loop.call_soon(self._flush)
        self._asked.setdefault((served, k, filter_seen), []).append(_Asked(user, answer))
        return await answer

    def _flush(self) -> None:
        asked, self._asked = self._asked, {}
        for (served, k, filter_seen), many in asked.items():
            for start in range(0, len(many), MOST):
                self._answer(served, k, filter_seen, many[start : start + MOST])

    def _answer(self, served: Served, k: int, filter_seen: bool, many: list[_Asked]) -> None:
        begun = time.perf_counter()
        try:
            found = served.recommend([one.user for one in many], k, filter_seen=filter_seen)
        except Exception as error:  # noqa: BLE001 - each request tells it in its own answer
            for one in many:
                if not one.answer.done():
                    one.answer.set_exception(error)
            return
        self._measured(served.name, len(many), time.perf_counter() - begun)
        for place, one in enumerate(many):
            if not one.answer.done():
                one.answer.set_result((found, place))
