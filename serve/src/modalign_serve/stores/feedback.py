"""Feedback is stored durably before it is acknowledged; many requests share one sync of the disk.

Requests pass their events to one thread, which writes all waiting events in one commit and reports
to each request how many of its events were new. While a commit runs, the next events gather, so
throughput is not limited by the latency of the disk.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from modalign_serve.errors import unavailable
from modalign_serve.stores.stores import Store, StoredEvent, StoreFailed

MAX_WAITING = 100_000
"""Maximum number of events that wait for the disk; more are refused with 503."""
MAX_BATCH = 20_000
"""Maximum number of events in one commit."""
PATIENCE = 10.0
"""Maximum seconds a request waits for its commit."""


class Meaning(NamedTuple):
    """What a kind of event does: `seen` hides the item from the user, `liked` moves the vector."""

    seen: bool
    liked: bool


KINDS: Final[dict[str, Meaning]] = {
    "view": Meaning(seen=False, liked=False),
    "click": Meaning(seen=True, liked=True),
    "like": Meaning(seen=True, liked=True),
    "cart": Meaning(seen=True, liked=True),
    "buy": Meaning(seen=True, liked=True),
    "dislike": Meaning(seen=True, liked=False),
    "hide": Meaning(seen=True, liked=False),
}
"""A view is only stored; a dislike hides the item and leaves the user's vector as it is."""


class _Waiting(NamedTuple):
    work: Sequence[StoredEvent] | Callable[[Store], Any]
    answer: asyncio.Future[Any]


class Feedback:
    """A store behind one writing thread.

    Args:
        store: where events go.
        committed: called with the seconds of each commit, by the writing thread.
    """

    def __init__(self, store: Store, committed: Callable[[float], None] | None = None) -> None:
        self.store = store
        self._committed = committed
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._waiting = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread; its answers go to the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="feedback", daemon=True)
        self._thread.start()

    async def record(self, rows: Sequence[StoredEvent]) -> int:
        """Store events durably; returns how many were new.

        Raises:
            Failure: 503 if the store fails, or too many events wait for it.
        """
        if self._waiting + len(rows) > MAX_WAITING:
            raise unavailable(
                f"{self._waiting} events that wait for the disk", "send them again in a moment"
            )
        self._waiting += len(rows)
        try:
            return int(await self._hand(rows))
        finally:
            self._waiting -= len(rows)

    async def put_item(self, item_id: str, body: bytes) -> None:
        """Store a new item durably.

        Raises:
            Failure: 503 if the store fails.
        """
        await self._hand(lambda store: store.put_item(item_id, body))

    async def _hand(self, work: Sequence[StoredEvent] | Callable[[Store], Any]) -> Any:
        assert self._loop is not None
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._queue.put(_Waiting(work, answer))
        try:
            return await asyncio.wait_for(answer, PATIENCE)
        except (StoreFailed, TimeoutError) as error:
            late = isinstance(error, TimeoutError)
            what = f"took over {PATIENCE:g} seconds" if late else f"failed ({error})"
            raise unavailable(
                f"a store of feedback that {what}",
                "send it again; an event counts once however often its id is sent",
            ) from error

    async def close(self) -> None:
        """Write what waits, end the thread, close the store."""
        if self._thread is not None:
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join)
            self._thread = None
        self.store.close()

    def _run(self) -> None:
        going = True
        while going:
            taken, count = [], 0
            one = self._queue.get()
            while one is not None:
                taken.append(one)
                count += 1 if callable(one.work) else len(one.work)
                if count >= MAX_BATCH or self._queue.empty():
                    break
                one = self._queue.get()
            going = one is not None
            self._write([w for w in taken if not callable(w.work)])
            for w in taken:
                if callable(w.work):
                    self._answer(w, w.work)

    def _write(self, taken: list[_Waiting]) -> None:
        if not taken:
            return
        started = time.perf_counter()
        try:
            new = self.store.write([w.work for w in taken])  # type: ignore[misc]
        except Exception:  # noqa: BLE001 - each request gets its own failure below
            # One request's events may be what the store refuses: the others are not to suffer.
            for w in taken:
                self._answer(w, lambda store, w=w: store.write([w.work])[0])  # type: ignore[misc]
            return
        if self._committed is not None:
            self._committed(time.perf_counter() - started)
        for w, count in zip(taken, new, strict=True):
            self._tell(w.answer, count)

    def _answer(self, waiting: _Waiting, act: Callable[[Store], Any]) -> None:
        try:
            self._tell(waiting.answer, act(self.store))
        except StoreFailed as error:
            self._tell(waiting.answer, error)
        except Exception as error:  # noqa: BLE001 - the thread outlives whatever a store does
            self._tell(waiting.answer, StoreFailed(f"{type(error).__name__}: {error}"))

    def _tell(self, answer: asyncio.Future[Any], found: Any) -> None:
        def settle() -> None:
            if answer.done():  # its request has gone
                return
            if isinstance(found, BaseException):
                answer.set_exception(found)
            else:
                answer.set_result(found)

        assert self._loop is not None
        self._loop.call_soon_threadsafe(settle)
