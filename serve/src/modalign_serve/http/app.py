"""The application: what happens to every request before and after its endpoint.

In this order: the endpoint is found (404, 405), the caller's rate is limited (429), the key is
checked (401, 403), the body is read up to its limit (413, 408), the endpoint answers, and the
answer is counted and logged. An exception in an endpoint becomes a JSON answer, or what its
`failed` makes of it.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import re
import secrets
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from starlette.responses import Response
from starlette.routing import Route, Router

from modalign_serve.artifact.strings import UnknownIds
from modalign_serve.errors import Failure, InputError
from modalign_serve.http.bounds import (
    MAX_ANSWERS,
    MAX_BODIES,
    PIECE,
    Body,
    Paced,
    Receive,
    Scope,
    Send,
    Shared,
    Unread,
    too_large,
)
from modalign_serve.http.http import JSON, Answer, Call, Endpoint, Table, error_body
from modalign_serve.service.keys import Key, presented
from modalign_serve.service.service import Service

LONGEST_PATH: Final = 200
"""Maximum characters of a path in the log and in answers."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_ALWAYS = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))
_CLOSE = ((b"connection", b"close"),)


class Application:
    """The service as an ASGI application.

    Args:
        service: that answers; it is started and stopped by the server.
        table: of the endpoints.
    """

    def __init__(self, service: Service, table: Table) -> None:
        self.service = service
        self.bodies, self.answers = Shared(MAX_BODIES), Shared(MAX_ANSWERS)
        self._serial = itertools.count(1)
        self._run = secrets.token_hex(4)
        paths = table.by_path().items()
        routes = [Route(path, _Path(self, methods)) for path, methods in paths]
        self._router = Router(routes, redirect_slashes=False, default=_Path(self, {}))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request.

        Args:
            scope: of ASGI.
            receive: of ASGI.
            send: of ASGI.
        """
        if scope["type"] == "http":
            # Paths are matched as they were sent, so that an id may contain a slash (%2F).
            raw: bytes = scope.get("raw_path") or scope["path"].encode()
            sent = {**scope, "path": raw.decode("latin-1"), "root_path": "", _PATH: scope["path"]}
            await self._router(sent, receive, send)

    def new_id(self) -> str:
        """An id for a request without one: unique in all runs of all services."""
        return f"{self._run}-{next(self._serial):x}"


_PATH: Final = "modalign.path"


class _Path:
    """The methods of one path; without any, of a path that does not exist."""

    def __init__(self, app: Application, methods: Mapping[str, Endpoint]) -> None:
        self._app, self._methods = app, methods

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _Exchange(self._app, self._methods, scope, receive, send).run()


class _Exchange:
    """One request and its answer."""

    def __init__(
        self,
        app: Application,
        methods: Mapping[str, Endpoint],
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        self.app, self.service, self.methods = app, app.service, methods
        self.scope, self.receive, self.send = scope, receive, send
        self.body = Body(receive, app.bodies)
        self.method: str = scope["method"]
        self.path: str = scope[_PATH]
        self.started = time.perf_counter()
        self.status = 0
        self.route = "other"
        self.key: Key | None = None
        self.failed: Callable[[Failure, str], Answer] | None = None
        # The first of several with one name counts.
        self.headers: dict[bytes, bytes] = dict(reversed(scope["headers"]))
        self.origin = self._header(b"origin")
        self.host = self._header(b"host")
        self.authorization = self.headers.get(b"authorization")
        given = self._header(b"x-request-id")
        fit = given is not None and _REQUEST_ID.fullmatch(given)
        self.request_id = given if given is not None and fit else app.new_id()

    def _header(self, name: bytes) -> str | None:
        value = self.headers.get(name)
        return None if value is None else value.decode("latin-1")

    async def run(self) -> None:
        """Answer, count and log the request."""
        service = self.service
        service.metrics.in_flight.inc()
        try:
            try:
                found = await self._answer()
            except Failure as error:
                found = self._failed(error)
            except UnknownIds as error:
                found = self._failed(Failure(404, error.expected, error.got, error.fix))
            except InputError as error:
                found = self._failed(Failure(422, error.expected, error.got, error.fix))
            except Exception as error:  # noqa: BLE001 - no request may stop the service
                found = self._broken(error)
            try:
                await self._write(found)
            except Unread:
                service.metrics.limited.labels("unread").inc()
            finally:
                if found.after is not None:
                    found.after()
        finally:
            self.body.free()
            service.metrics.in_flight.dec()
            self._note()

    async def _answer(self) -> Answer:
        if not self.methods:
            self._let_in("open")
            path = repr(self.path[:LONGEST_PATH])
            raise Failure(404, "a path of this service", path, "see /docs for all paths")
        if self.origin is not None and self.service.settings.cors:
            preflight = self._preflight()
            if preflight is not None:
                return preflight
        endpoint = self._endpoint()
        self._let_in(endpoint.access)
        body = await self._body() if self.method == "POST" else b""
        query: bytes = self.scope["query_string"]
        params = {name: unquote(value) for name, value in self.scope["path_params"].items()}
        call = Call(
            self.method, self.path, params, query, self.scope["headers"], body,
            self.key, self.request_id,
        )  # fmt: skip
        return await endpoint.handler(call)

    def _endpoint(self) -> Endpoint:
        methods = self.methods
        some = next(iter(methods.values()))
        self.route, self.failed = some.path, some.failed
        endpoint = methods.get("GET" if self.method == "HEAD" else self.method)
        if endpoint is None:
            allowed = [*methods, *(["HEAD"] if "GET" in methods else [])]
            listed = ", ".join(allowed)
            raise Failure(
                405, f"{listed} of {self.route}", self.method, "use another method",
                {"allow": listed},
            )  # fmt: skip
        return endpoint

    def _let_in(self, access: str) -> None:
        """Limit the caller's rate and check the key."""
        service = self.service
        word = None
        if service.keys is not None and self.authorization is not None:
            word = presented(self.authorization)
        if service.keys is not None and word is not None:
            self.key = service.keys.find(word)
        if access == "open" and self.route in ("/health", "/ready"):
            return
        if self.host is not None and not service.settings.answers_for(self.host):
            raise Failure(
                421, "a local name or an allowed one as Host", repr(self.host[:100]),
                "start the service with --allow-host for that name",
            )  # fmt: skip
        if service.limit is not None:
            client = self.scope.get("client")
            address = client[0] if client else ""
            wait = service.limit.wait(f"key {self.key.name}" if self.key else address)
            if wait > 0:
                service.metrics.limited.labels("rate").inc()
                raise Failure(
                    429, f"at most {service.settings.rate:g} requests per second", "more",
                    "wait for the seconds in Retry-After", {"retry-after": str(math.ceil(wait))},
                )  # fmt: skip
        if access == "open":
            return
        if self.method not in ("GET", "HEAD") and not self._same_site():
            raise Failure(
                403, "a call from this site", f"one from a page of {self.origin}",
                "start the service with --cors for that origin",
            )  # fmt: skip
        self._check_key(access)

    def _check_key(self, access: str) -> None:
        if self.service.keys is None:
            if access == "admin":
                raise Failure(
                    403, "a service with API keys, as only administrators may do this",
                    "a service without any",
                    "start it with --keys; `modalign-serve key NAME --keys FILE --admin` makes one",
                )  # fmt: skip
            return
        if self.key is None:
            raise Failure(
                401, "an API key in the header `Authorization: Bearer KEY`",
                "none" if self.authorization is None else "an unknown one",
                "ask the operator of this service for a key",
                {"www-authenticate": 'Basic realm="modalign", charset="UTF-8", Bearer'},
            )  # fmt: skip
        if access == "admin" and self.key.role != "admin":
            raise Failure(
                403, "an administrator's key", f"{self.key.name!r}, whose role is {self.key.role}",
                "use a key made with --admin",
            )  # fmt: skip

    def _same_site(self) -> bool:
        """Whether no page of another site sent this; programs send no Origin."""
        if self.origin is None or self._allowed_origin():
            return True
        return self.host is not None and self.origin.partition("://")[2] == self.host

    def _allowed_origin(self) -> bool:
        return self.origin is not None and self.origin in self.service.settings.cors

    def _preflight(self) -> Answer | None:
        """The answer to a preflight request of a browser; None if it is not one."""
        if self.method != "OPTIONS" or not self._allowed_origin():
            return None
        self.route = next(iter(self.methods.values())).path
        allowed = ", ".join(self.methods).encode()
        return Answer(
            204, b"", "",
            (
                (b"access-control-allow-methods", allowed),
                (b"access-control-allow-headers", b"authorization, content-type, x-request-id"),
                (b"access-control-max-age", b"600"),
            ),
        )  # fmt: skip

    async def _body(self) -> bytes:
        """The complete body."""
        settings = self.service.settings
        encoding = self._header(b"content-encoding") or "identity"
        if encoding != "identity":
            raise Failure(
                415, "a body that is not compressed", f"Content-Encoding {encoding}",
                "send it uncompressed",
            )  # fmt: skip
        try:
            length = self.headers.get(b"content-length")
            if length is not None and int(length) > settings.max_body:
                raise too_large(f"{int(length):,} bytes", settings.max_body)
            return await self.body.read(settings.max_body, settings.timeout)
        except Failure as error:
            if error.status in (413, 503):
                self.service.metrics.limited.labels("body").inc()
            raise

    def _failed(self, error: Failure) -> Answer:
        headers = [(name.encode(), value.encode()) for name, value in error.headers.items()]
        if not self.body.ended and self.method not in ("GET", "HEAD"):
            headers += _CLOSE
        if self.failed is not None:
            page = self.failed(error, self.request_id)
            return page._replace(headers=[*page.headers, *headers])
        return Answer(error.status, error_body(error, self.request_id), JSON, headers)

    def _broken(self, error: Exception) -> Answer:
        self.service.log.error(
            "failed",
            path=self.path[:LONGEST_PATH],
            request_id=self.request_id,
            error=f"{type(error).__name__}: {error}",
            traceback="".join(traceback.format_exception(error)),
        )
        failure = Failure(
            500, "an answer", "an error inside the service",
            "report it to the operator with this request_id",
        )  # fmt: skip
        return self._failed(failure)

    async def _write(self, found: Answer) -> None:
        size = found.body.stat().st_size if isinstance(found.body, Path) else len(found.body)
        held = size if size > PIECE and not isinstance(found.body, Path) else 0
        try:
            self.app.answers.take(held)
        except Failure as error:
            found, held = self._failed(error), 0
            size = len(found.body) if isinstance(found.body, bytes) else 0
        try:
            await self._send(found, size)
        finally:
            self.app.answers.give(held)

    async def _send(self, found: Answer, size: int) -> None:
        self.status = found.status
        headers = [
            (b"content-length", str(size).encode()),
            (b"x-request-id", self.request_id.encode()),
        ]
        if found.content_type:
            headers.append((b"content-type", found.content_type.encode()))
        given = {name for name, _ in found.headers}
        headers += [pair for pair in _ALWAYS if pair[0] not in given]
        headers += found.headers
        if found.status == 204:
            del headers[0]
        if self.origin is not None and self._allowed_origin():
            origin = self.origin.encode("latin-1")
            headers += [(b"access-control-allow-origin", origin), (b"vary", b"Origin")]
        if self.service.stopping and b"connection" not in given:
            headers += _CLOSE
        send = Paced(self.send, self.service.settings.timeout, size)
        # A caller that is still sending would lose the connection before it reads the answer.
        linger = not self.body.ended and found.status >= 400 and found.status != 408
        if isinstance(found.body, Path):
            await send({"type": "http.response.start", "status": found.status, "headers": headers})
            await self._send_file(found.body, send)
        elif linger and self.method not in ("GET", "HEAD"):
            await send({"type": "http.response.start", "status": found.status, "headers": headers})
            await send({"type": "http.response.body", "body": found.body, "more_body": True})
            await self.body.linger()
            await send({"type": "http.response.body", "body": b""})
        else:
            answer = Response(b"" if self.method == "HEAD" else found.body, found.status)
            answer.raw_headers = headers
            await answer(self.scope, self.receive, send)

    async def _send_file(self, path: Path, send: Send) -> None:
        with path.open("rb") as file:
            while self.method != "HEAD":
                piece = await asyncio.to_thread(file.read, PIECE)
                if not piece:
                    break
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    def _note(self) -> None:
        service, seconds = self.service, time.perf_counter() - self.started
        method = self.method if self.method in _METHODS else "other"
        service.metrics.request(self.route, method, self.status, seconds)
        if service.log.requests:
            client = self.scope.get("client")
            service.log.info(
                "request",
                method=self.method,
                path=self.path[:LONGEST_PATH],
                status=self.status,
                ms=round(1000 * seconds, 2),
                client=client[0] if client else None,
                key=self.key.name if self.key else None,
                request_id=self.request_id,
            )


_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT")
