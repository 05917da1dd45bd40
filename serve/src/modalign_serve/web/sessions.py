"""Sessions of the page: a form takes a key, and a cookie remembers it.

The key itself is in no address and no cookie. The cookie holds a random word, for which this
process remembers the hash of the key; if the key is removed, the session ends.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from http.cookies import CookieError, SimpleCookie
from urllib.parse import urlsplit

from modalign_serve.service.keys import Key, Keys

COOKIE = "modalign-session"
SECONDS = 12 * 3600
MAX_SESSIONS = 10_000

Headers = Sequence[tuple[bytes, bytes]]


def header(headers: Headers, name: bytes) -> str | None:
    """The first header of a name, given in lower case."""
    for found, value in headers:
        if found == name:
            return value.decode("latin-1")
    return None


def same_site(headers: Headers) -> bool:
    """Whether a browser says that a form of this service sent a request.

    Browsers name the site of the form in `Sec-Fetch-Site`, older ones in `Origin`; a request with
    neither is refused.

    Example:
        >>> host = (b"host", b"shop.test")
        >>> same_site([host, (b"origin", b"http://shop.test")])
        True
        >>> same_site([host, (b"origin", b"http://evil.test")]), same_site([host])
        (False, False)
    """
    site = header(headers, b"sec-fetch-site")
    if site is not None and site != "same-origin":
        return False
    origin = header(headers, b"origin")
    if origin is None:
        return site is not None
    try:
        return urlsplit(origin).netloc == header(headers, b"host")
    except ValueError:  # such as http://[
        return False


class Sessions:
    """The open sessions; if there are too many, the oldest end.

    Args:
        clock: a monotonic clock in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[str, tuple[str, float]] = {}

    def start(self, key: Key) -> str:
        """Start a session; returns its word."""
        word = secrets.token_urlsafe(32)
        while len(self._known) >= MAX_SESSIONS:
            del self._known[next(iter(self._known))]
        self._known[word] = (key.sha256, self._clock() + SECONDS)
        return word

    def end(self, headers: Headers) -> None:
        """End the session of a request."""
        self._known.pop(_word(headers), None)

    def key(self, headers: Headers, keys: Keys) -> Key | None:
        """The key of a request's session, if both are still valid."""
        sha256, until = self._known.get(_word(headers), ("", 0.0))
        if self._clock() >= until:
            return None
        return next((key for key in keys.keys if key.sha256 == sha256), None)


def cookie(word: str, headers: Headers) -> bytes:
    """The header that sets the cookie of a session: for this site only, hidden from scripts.

    It is restricted to TLS if the form came over TLS; an empty word deletes the cookie.
    """
    parts = [f"{COOKIE}={word}", "Path=/", "HttpOnly", "SameSite=Strict"]
    if not word:
        parts.append("Max-Age=0")
    if (header(headers, b"origin") or "").startswith("https://"):
        parts.append("Secure")
    return "; ".join(parts).encode()


def _word(headers: Headers) -> str:
    try:
        found = SimpleCookie(header(headers, b"cookie") or "").get(COOKIE)
    except CookieError:
        return ""
    return found.value if found is not None else ""
