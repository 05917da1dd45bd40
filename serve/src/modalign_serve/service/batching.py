"""Requests that arrive together are answered by one matrix product.

The server hands over requests from a thread of its own, which needs Python's lock to do so. While
requests keep coming, the event loop rests for a moment and lets go of that lock, so that those that
have arrived are there. Under load one product and one selection of the best items then serve many
requests; without load no request waits for another.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple

from modalign_serve.ranker.people import Person
from modalign_serve.ranker.ranker import Ranked
from modalign_serve.ranker.rules import Rules
from modalign_serve.service.served import Served

LARGEST = 32
"""Maximum number of requests in one product: more scores exceed the processor's caches."""
REST = 50e-6
"""Seconds to rest until more requests are handed over."""
TURNS = 3
"""Turns of the event loop from a request that is handed over to its place in the batch."""


class _Waiting(NamedTuple):
    person: Person
    answer: asyncio.Future[tuple[Ranked, int]]


class Batcher:
    """Gathers requests until no more are handed over.

    Args:
        measured: called with the model's name, the size of a batch and its seconds.
    """

    def __init__(self, measured: Callable[[str, int, float], None]) -> None:
        self._measured = measured
        self._waiting: dict[tuple[Served, int, bool], list[_Waiting]] = {}
        self._count, self._last = 0, 0
        self._gathering: asyncio.Task[None] | None = None

    async def ask(
        self, served: Served, person: Person, k: int, filter_seen: bool
    ) -> tuple[Ranked, int]:
        """Lists of several users, and the place of this user's among them.

        Args:
            served: the model.
            person: the user, as `Served.find` gave it.
            k: length of the list.
            filter_seen: leave out what the user has seen.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[tuple[Ranked, int]] = loop.create_future()
        if not self._waiting:
            self._gathering = loop.create_task(self._gather())
        self._count += 1
        self._waiting.setdefault((served, k, filter_seen), []).append(_Waiting(person, answer))
        return await answer

    async def _gather(self) -> None:
        had = 0
        while had < self._count < LARGEST and (self._count > 1 or self._last > 1):
            had = self._count
            time.sleep(REST)
            for _ in range(TURNS):
                await asyncio.sleep(0)
        self._last = self._count
        self._flush()

    def _flush(self) -> None:
        waiting, self._waiting, self._count = self._waiting, {}, 0
        for (served, k, filter_seen), many in waiting.items():
            for start in range(0, len(many), LARGEST):
                self._answer(served, k, filter_seen, many[start : start + LARGEST])

    def _answer(self, served: Served, k: int, filter_seen: bool, many: list[_Waiting]) -> None:
        started = time.perf_counter()
        rules = Rules(filter_seen=filter_seen)
        try:
            found = served.ranker.recommend_people([one.person for one in many], k, rules)
        except Exception as error:  # noqa: BLE001 - each request reports it in its own answer
            for one in many:
                if not one.answer.done():
                    one.answer.set_exception(error)
            return
        self._measured(served.name, len(many), time.perf_counter() - started)
        for place, one in enumerate(many):
            if not one.answer.done():
                one.answer.set_result((found, place))
