"""When the next request may go out: limits of a minute, and pauses after a failure."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from math import isfinite

from modalign.core.seeds import numpy_generator
from modalign.errors import ConfigError

WINDOW = 60.0
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 60.0


class Pace:
    """Holds requests back so that no 60 seconds see more of them, or of tokens, than allowed.

    A window that slides, not one that starts anew: what went out in the last 60 seconds is
    remembered. A request that alone has more tokens than a minute allows goes out alone.

    Args:
        requests_per_minute: None for no limit.
        tokens_per_minute: None for no limit.
        now: seconds of a clock that never goes back.
        sleep: waits for some seconds; may come back early.

    Raises:
        ConfigError: a limit is not positive.
    """

    def __init__(
        self,
        requests_per_minute: int | None,
        tokens_per_minute: int | None,
        now: Callable[[], float],
        sleep: Callable[[float], object],
    ) -> None:
        for name, limit in (("requests", requests_per_minute), ("tokens", tokens_per_minute)):
            if limit is not None and limit < 1:
                raise ConfigError(
                    f"1 or more {name} a minute", str(limit), "give more, or leave the limit out"
                )
        self._most, self._tokens = requests_per_minute, tokens_per_minute
        self._now, self._sleep = now, sleep
        self._lock = threading.Lock()
        self._sent: deque[tuple[float, int]] = deque()
        self._not_before = 0.0

    def wait(self, tokens: int, stopped: Callable[[], bool]) -> bool:
        """Come back when a request of so many tokens may go out; False where it was stopped."""
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
        """Let nothing out for some seconds: the server has asked for it."""
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


class Backoff:
    """Pauses before trying again: doubled each time, with a random part so that not all wait alike.

    Example:
        >>> pause = Backoff(seed=1)
        >>> [0.25 * 2**n <= pause.seconds(n) <= 0.5 * 2**n for n in range(4)]
        [True, True, True, True]
    """

    def __init__(self, seed: int = 0) -> None:
        self._rng = numpy_generator(seed, "profiles", "backoff")
        self._lock = threading.Lock()

    def seconds(self, attempt: int) -> float:
        """Before the try after attempt number `attempt`, counted from 0."""
        with self._lock:
            share = self._rng.uniform(0.5, 1.0)
        return float(min(FIRST_PAUSE * 2.0**attempt, LONGEST_PAUSE) * share)


def retry_after(header: str | None) -> float | None:
    """Seconds that a server asks to wait, told in seconds or as a date; None where it does not.

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
