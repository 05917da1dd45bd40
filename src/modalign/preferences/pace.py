"""When the next request may be sent: limits per minute, and pauses that a server asks for."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import isfinite

WINDOW = 60.0


class Pace:
    """Delays requests so that any 60 seconds have at most the allowed requests and tokens.

    The window slides: the requests of the last 60 seconds are remembered. A request that alone
    has more tokens than a minute allows is sent alone.

    Args:
        requests_per_minute: at least 1; None for no limit.
        tokens_per_minute: at least 1; None for no limit.
        now: clock in seconds that never goes back.
        sleep: waits for a number of seconds; may return early.
    """

    def __init__(
        self,
        requests_per_minute: int | None,
        tokens_per_minute: int | None,
        now: Callable[[], float],
        sleep: Callable[[float], object],
    ) -> None:
        self._most, self._tokens = requests_per_minute, tokens_per_minute
        self._now, self._sleep = now, sleep
        self._lock = threading.Lock()
        self._sent: deque[tuple[float, int]] = deque()
        self._not_before = 0.0

    def wait(self, tokens: int, stopped: Callable[[], bool]) -> bool:
        """Return True once a request of `tokens` tokens may be sent, or False if it was stopped."""
        while not stopped():
            with self._lock:
                now = self._now()
                delay = self._delay(now, tokens)
                if delay <= 0:
                    self._sent.append((now, tokens))
                    return True
            self._sleep(delay)
        return False

    def pause(self, seconds: float) -> None:
        """Send nothing for a number of seconds, as the server has asked."""
        with self._lock:
            self._not_before = max(self._not_before, self._now() + seconds)

    def _delay(self, now: float, tokens: int) -> float:
        while self._sent and self._sent[0][0] <= now - WINDOW:
            self._sent.popleft()
        free = self._not_before
        if self._most is not None and len(self._sent) >= self._most:
            free = max(free, self._sent[len(self._sent) - self._most][0] + WINDOW)
        if self._tokens is not None:
            spent = sum(one for _, one in self._sent)
            for moment, one in self._sent:
                if spent + tokens <= self._tokens:
                    break
                spent -= one
                free = max(free, moment + WINDOW)
        return free - now


def retry_after(header: str | None) -> float | None:
    """Seconds to wait according to the header `Retry-After`, a number or a date; None without one.

    Example:
        >>> retry_after("7"), retry_after("soon"), retry_after(None)
        (7.0, None, None)
    """
    if header is None:
        return None
    try:
        seconds = float(header)
        return max(0.0, seconds) if isfinite(seconds) else None
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(header)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
