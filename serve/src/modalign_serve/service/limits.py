"""The rate limit, a bucket of tokens for each caller, and the limit of work at the same time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from modalign_serve.errors import unavailable

MAX_CALLERS = 10_000
"""Maximum number of buckets, so that forged addresses cannot fill the memory."""


class RateLimit:
    """At most `rate` requests per second for each caller, with bursts of up to `burst`.

    Args:
        rate: tokens added to a caller's bucket per second.
        burst: maximum number of tokens in a bucket; None: twice the rate, at least one.
        clock: a monotonic clock in seconds.

    Example:
        >>> now = [0.0]
        >>> limit = RateLimit(2.0, burst=1, clock=lambda: now[0])
        >>> limit.wait("a"), limit.wait("a"), limit.wait("b")
        (0.0, 0.5, 0.0)
        >>> now[0] = 0.5
        >>> limit.wait("a")
        0.0
    """

    def __init__(
        self, rate: float, burst: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.rate = rate
        self.burst = max(1.0, 2 * rate if burst is None else burst)
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def wait(self, caller: str) -> float:
        """Seconds until the caller may ask; 0 if it may now, which takes a token."""
        now = self._clock()
        tokens, since = self._buckets.pop(caller, (self.burst, now))
        tokens = min(self.burst, tokens + (now - since) * self.rate)
        allowed = tokens >= 1
        # Put in last: the dictionary is in the order of use, and the oldest entry goes first.
        self._buckets[caller] = (tokens - 1 if allowed else tokens, now)
        if len(self._buckets) > MAX_CALLERS:
            del self._buckets[next(iter(self._buckets))]
        return 0.0 if allowed else (1 - tokens) / self.rate


MAX_WORK = 400_000
"""Maximum number of entries (lists times their length) that are made at the same time."""
SMALL_WORK = 1000
"""Entries of a request that is never refused: connections bound how many there are."""


class WorkLimit:
    """What large requests may hold in memory together.

    Args:
        most: entries.

    Example:
        >>> limit = WorkLimit(5000)
        >>> with limit.held(4000), limit.held(10):
        ...     limit.free
        1000
    """

    def __init__(self, most: int = MAX_WORK) -> None:
        self.free = most

    @contextlib.contextmanager
    def held(self, entries: int) -> Iterator[None]:
        """Hold some entries while a request is answered.

        Raises:
            Failure: 503 if they are not free.
        """
        if entries <= SMALL_WORK:
            yield
            return
        if entries > self.free:
            raise unavailable("too many large requests at the same time", "ask again in a moment")
        self.free -= entries
        try:
            yield
        finally:
            self.free += entries
