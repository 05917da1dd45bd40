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
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from modalign_serve.errors import Failure, unavailable
from modalign_serve.stores.stores import Conflict, Store, StoredEvent, StoreFailed

MAX_WAITING = 64 * 2**20
"""Maximum bytes of events and items that wait for the disk; more are refused with 503."""
EVENT_BYTES = 1500
"""Memory of a waiting event besides its texts: the request, its body and the row."""
MAX_BATCH = 20_000
"""Maximum number of events in one commit."""
PATIENCE = 10.0
"""Maximum seconds a request waits for its commit to start; the store bounds the commit itself."""
CLOSING = 15.0
"""Maximum seconds to write what waits when the service stops."""


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
"""A view makes the user known; a dislike hides the item and leaves the user's vector as it is."""


@dataclass(eq=False)
class _Waiting:
    """Work of one request. It is either claimed by the writing thread, or withdrawn by a request
    that has waited too long; a withdrawn one is never written.
    """

    work: Sequence[StoredEvent] | Callable[[Store], Any] | None
    answer: asyncio.Future[Any]
    claimed: bool = False


class Feedback:
    """A store behind one writing thread.

    Args:
        store: where events go.
        committed: called with the seconds of each commit, by the writing thread.
        failed: called with the cause of each write that failed, by the event loop.
    """

    def __init__(
        self,
        store: Store,
        committed: Callable[[float], None] | None = None,
        failed: Callable[[StoreFailed], None] | None = None,
    ) -> None:
        self.store = store
        self._committed, self._failed = committed, failed
        self._lock = threading.Lock()
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
            Failure: 409 if another event has the id of one of them; 503 if the store fails, or too
                many events wait for it. Nothing is stored in any of these cases.
        """
        size = sum(EVENT_BYTES + sum(map(len, row[:4])) for row in rows)
        found = await self._hand(rows, size)
        if isinstance(found, Conflict):
            raise Failure(
                409, "an id of its own for each event, or the same event again",
                f"{found.event_id!r}, which is the id of another event",
                "change the id; nothing of this call was stored",
            )  # fmt: skip
        return int(found)

    async def put_item(self, item_id: str, body: bytes) -> None:
        """Store a new item durably.

        Raises:
            Failure: 503 if the store fails.
        """
        size = EVENT_BYTES + 2 * len(body)
        await self._hand(lambda store: store.put_item(item_id, body), size)

    async def _hand(self, work: Sequence[StoredEvent] | Callable[[Store], Any], size: int) -> Any:
        assert self._loop is not None
        if self._waiting + size > MAX_WAITING:
            raise unavailable(
                f"{self._waiting / 2**20:.0f} MB that wait for the disk",
                "send it again in a moment",
            )
        waiting = _Waiting(work, self._loop.create_future())
        del work
        self._waiting += size
        self._queue.put(waiting)
        try:
            return await self._outcome(waiting)
        except (StoreFailed, TimeoutError) as error:
            late = isinstance(error, TimeoutError)
            raise unavailable(
                f"a store of feedback that {'takes too long' if late else 'failed'}",
                "send it again; an event counts once however often its id is sent",
            ) from error
        finally:
            self._waiting -= size

    async def _outcome(self, waiting: _Waiting) -> Any:
        try:
            async with asyncio.timeout(PATIENCE):
                return await asyncio.shield(waiting.answer)
        except (TimeoutError, asyncio.CancelledError):
            if self._withdrawn(waiting):
                raise
        # It is being written: only the outcome says what to answer.
        return await waiting.answer

    def _withdrawn(self, waiting: _Waiting) -> bool:
        with self._lock:
            if not waiting.claimed:
                waiting.work = None  # its memory is free before the thread comes to it
            return not waiting.claimed

    def _claimed(self, waiting: _Waiting) -> bool:
        with self._lock:
            waiting.claimed = waiting.work is not None
            return waiting.claimed

    async def close(self) -> None:
        """Write what waits, end the thread, close the store; within `CLOSING` seconds.

        A thread that a store holds longer is left behind: everything acknowledged is on disk.
        """
        if self._thread is not None:
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join, CLOSING)
            if self._thread.is_alive():
                return
            self._thread = None
        self.store.close()

    def _run(self) -> None:
        going = True
        while going:
            taken, count = [], 0
            one = self._queue.get()
            while one is not None:
                work = one.work
                if work is not None:
                    taken.append(one)
                    count += 1 if callable(work) else len(work)
                if count >= MAX_BATCH or self._queue.empty():
                    break
                one = self._queue.get()
            going = one is not None
            self._write([w for w in taken if not callable(w.work)])
            for w in taken:
                if callable(w.work) and self._claimed(w):
                    self._answer(w, w.work)

    def _write(self, taken: list[_Waiting]) -> None:
        taken = [w for w in taken if self._claimed(w)]
        if not taken:
            return
        started = time.perf_counter()
        try:
            new = self.store.write([w.work for w in taken])  # type: ignore[misc]
        except Exception as error:  # noqa: BLE001 - each request gets its own failure below
            if len(taken) == 1 or (isinstance(error, StoreFailed) and error.unusable):
                failure = self._reported(error)
                for w in taken:
                    self._tell(w.answer, failure)
                return
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
        except Exception as error:  # noqa: BLE001 - the thread outlives whatever a store does
            self._tell(waiting.answer, self._reported(error))

    def _reported(self, error: Exception) -> StoreFailed:
        known = isinstance(error, StoreFailed)
        failure = error if known else StoreFailed(f"{type(error).__name__}: {error}")
        assert isinstance(failure, StoreFailed)
        if self._failed is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(self._failed, failure)
        return failure

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
