"""Access to the pages: a visitor without a key gets a form instead of an error."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

from modalign_serve.errors import Failure
from modalign_serve.http.http import Answer, Call
from modalign_serve.web import sessions
from modalign_serve.web.forms import Form, read_form
from modalign_serve.web.site import Site, to

Show = Callable[[Call], Awaitable[Answer]]


class Door:
    """The form for a key, and the sessions.

    Args:
        site: that it protects.
    """

    def __init__(self, site: Site) -> None:
        self.site = site
        self.sessions = sessions.Sessions()

    def guarded(self, show: Show) -> Show:
        """A page that needs a key if the service has keys; its forms must be of this site."""

        async def shown(call: Call) -> Answer:
            if call.method == "POST":
                check_site(call)
            keys = self.site.service.keys
            if not (keys is None or call.key is not None or self.sessions.key(call.headers, keys)):
                query = f"?{call.query.decode('latin-1')}" if call.query else ""
                name = call.path.rpartition("/")[2]
                return self._form(f"{name}{query}" if call.method != "POST" else name, 401)
            return await show(call)

        return shown

    def _form(self, then: str, status: int, wrong: bool = False) -> Answer:
        found = self.site.plain("key", status, then=then, wrong=wrong)
        # A challenge for which browsers show no dialogue of their own.
        asked = (b"www-authenticate", b"Bearer") if status == 401 else None
        return found._replace(headers=[*found.headers, *([asked] if asked else [])])

    async def key(self, call: Call) -> Answer:
        """The form."""
        return self._form("recommend", 200)

    async def start(self, call: Call) -> Answer:
        """Start a session with a key."""
        check_site(call)
        form = form_of(call)
        keys = self.site.service.keys
        then = form.text("then")
        # Only an address beside this one: no other site or folder, no further header.
        if not re.fullmatch(r"[a-z]+(\?[!-~]*)?", then):
            then = "recommend"
        if keys is None:
            return to(then)
        found = keys.find(form.text("key"))
        if found is None:
            return self._form(then, 401, wrong=True)
        word = self.sessions.start(found)
        return to(then, (b"set-cookie", sessions.cookie(word, call.headers)))

    async def end(self, call: Call) -> Answer:
        """End the session."""
        check_site(call)
        self.sessions.end(call.headers)
        return to("key", (b"set-cookie", sessions.cookie("", call.headers)))


def check_site(call: Call) -> None:
    """Refuse a form of another site.

    Raises:
        Failure: 403.
    """
    if not sessions.same_site(call.headers):
        raise Failure(
            403, "a form of this page", "a form of another site", "open the page and send its form"
        )


def form_of(call: Call) -> Form:
    """The content of a form.

    Raises:
        Failure: 400, 415 or 422, see `read_form`.
    """
    return read_form(call.body, sessions.header(call.headers, b"content-type") or "")
