"""Who may see the page: keys taken by a form and remembered for a session, requests of this site.

The key itself is put into no address and no cookie. The cookie is a random word that this process
knows the key's hash by, so that a key that is taken away opens nothing from then on.
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
MOST = 10_000

Headers = Sequence[tuple[bytes, bytes]]


def header(headers: Headers, name: bytes) -> str | None:
    """The first header of a name, which is given in small letters."""
    for found, value in headers:
        if found == name:
            return value.decode("latin-1")
    return None


def same_site(headers: Headers) -> bool:
    """Whether a browser says that a form of this very service sent a request.

    Browsers tell where a form stood in `Sec-Fetch-Site`, older ones in `Origin`; a request that
    tells neither is refused.

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
    return urlsplit(origin).netloc == header(headers, b"host")


class Sessions:
    """Sessions that a key was given for; the oldest end where there are too many.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[str, tuple[str, float]] = {}

    def begin(self, key: Key) -> str:
        """A new session's word."""
        word = secrets.token_urlsafe(32)
        while len(self._known) >= MOST:
            del self._known[next(iter(self._known))]
        self._known[word] = (key.sha256, self._clock() + SECONDS)
        return word

    def end(self, headers: Headers) -> None:
        """Forget the session of a request."""
        self._known.pop(_word(headers), None)

    def key(self, headers: Headers, keys: Keys) -> Key | None:
        """The key that a request's session was begun with, if it still opens."""
        sha256, until = self._known.get(_word(headers), ("", 0.0))
        if self._clock() >= until:
            return None
        return next((key for key in keys.keys if key.sha256 == sha256), None)


def cookie(word: str, headers: Headers) -> bytes:
    """The header that hands a session to the browser: for this site alone, hidden from scripts.

    It is sent over TLS alone where the form came over TLS; an empty word takes it back.
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
