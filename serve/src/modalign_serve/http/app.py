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
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any, Final

from modalign_serve.artifact.strings import UnknownIds
from modalign_serve.errors import Failure, InputError
from modalign_serve.http.http import JSON, Answer, Call, Endpoint, Found, Table, error_body
from modalign_serve.service.keys import Key, presented
from modalign_serve.service.service import Service

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

LINGER_BYTES: Final = 8_000_000
LINGER_SECONDS: Final = 2.0
FILE_CHUNK: Final = 256 * 1024
LONGEST_PATH: Final = 200
"""Maximum characters of a path in the log and in answers."""
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_ALWAYS = ((b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"))
_CLOSE = ((b"connection", b"close"),)


class Application:
    """The service as an ASGI application.

    Args:
        service: that answers.
        table: of the endpoints.
    """

    def __init__(self, service: Service, table: Table) -> None:
        self.service, self.table = service, table
        self._serial = itertools.count(1)
        self._run = secrets.token_hex(4)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or start and stop with the server.

        Args:
            scope: of ASGI.
            receive: of ASGI.
            send: of ASGI.
        """
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await _Exchange(self, scope, receive, send).run()

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    await self.service.start()
                except InputError as error:
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    return
                await send({"type": "lifespan.startup.complete"})
            else:
                await self.service.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return

    def new_id(self) -> str:
        """An id for a request without one: unique in all runs of all services."""
        return f"{self._run}-{next(self._serial):x}"


class _Exchange:
    """One request and its answer."""

    def __init__(self, app: Application, scope: Scope, receive: Receive, send: Send) -> None:
        self.app, self.service = app, app.service
        self.scope, self.receive, self.send = scope, receive, send
        self.method: str = scope["method"]
        self.started = time.perf_counter()
        self.status = 0
        self.route = "other"
        self.key: Key | None = None
        self.failed: Callable[[Failure, str], Answer] | None = None
        self.unread = True
        self.host = self.origin = self.authorization = self.length = None
        self.encoding: bytes | None = None
        self.request_id = ""
        for name, value in scope["headers"]:
            if name == b"content-length":
                self.length = value
            elif name == b"authorization":
                self.authorization = value
            elif name == b"origin":
                self.origin = value
            elif name == b"host":
                self.host = value
            elif name == b"content-encoding":
                self.encoding = value
            elif name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
                self.request_id = value.decode()
        self.request_id = self.request_id or app.new_id()

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
            finally:
                if found.after is not None:
                    found.after()
        finally:
            service.metrics.in_flight.dec()
            self._note()

    async def _answer(self) -> Answer:
        app = self.app
        raw: bytes = self.scope.get("raw_path") or self.scope["path"].encode()
        found = app.table.find(raw)
        if found is None:
            self._let_in("open")
            path = repr(self.scope["path"][:LONGEST_PATH])
            raise Failure(404, "a path of this service", path, "see /docs for all paths")
        if self.origin is not None and self.service.settings.cors:
            preflight = self._preflight(found)
            if preflight is not None:
                return preflight
        endpoint = self._endpoint(found)
        self._let_in(endpoint.access)
        body = await self._body() if self.method == "POST" else b""
        query: bytes = self.scope["query_string"]
        call = Call(
            self.method, self.scope["path"], found.params, query, self.scope["headers"], body,
            self.key, self.request_id,
        )  # fmt: skip
        return await endpoint.handler(call)

    def _endpoint(self, found: Found) -> Endpoint:
        methods = found.methods
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
        word = presented(self.authorization) if service.keys is not None else None
        if service.keys is not None and word is not None:
            self.key = service.keys.find(word)
        if access == "open" and self.route in ("/health", "/ready"):
            return
        if self.host is not None and not service.settings.answers_for(_text(self.host)):
            raise Failure(
                421, "a local name or an allowed one as Host", repr(_text(self.host)[:100]),
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
                403, "a call from this site", f"one from a page of {_text(self.origin)}",
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
        return self.host is not None and self.origin.partition(b"://")[2] == self.host

    def _allowed_origin(self) -> bool:
        return self.origin is not None and _text(self.origin) in self.service.settings.cors

    def _preflight(self, found: Found) -> Answer | None:
        """The answer to a preflight request of a browser; None if it is not one."""
        if self.method != "OPTIONS" or not self._allowed_origin():
            return None
        self.route = next(iter(found.methods.values())).path
        allowed = ", ".join(found.methods).encode()
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
        most = self.service.settings.max_body
        if self.encoding not in (None, b"identity"):
            raise Failure(
                415, "a body that is not compressed", f"Content-Encoding {_text(self.encoding)}",
                "send it uncompressed",
            )  # fmt: skip
        if self.length is not None and int(self.length) > most:
            raise self._too_large(f"{int(self.length):,} bytes", most)
        parts, size = [], 0
        try:
            async with asyncio.timeout(self.service.settings.timeout):
                while True:
                    message = await self.receive()
                    if message["type"] == "http.disconnect":
                        self.unread = False
                        raise Failure(400, "a complete body", "a broken connection", "try again")
                    part: bytes = message.get("body", b"")
                    size += len(part)
                    if size > most:
                        raise self._too_large("more", most)
                    parts.append(part)
                    if not message.get("more_body", False):
                        break
        except TimeoutError as error:
            seconds = self.service.settings.timeout
            raise Failure(
                408, f"a body within {seconds:g} seconds", f"{size:,} bytes of it", "send it faster"
            ) from error
        self.unread = False
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _too_large(self, got: str, most: int) -> Failure:
        self.service.metrics.limited.labels("body").inc()
        return Failure(413, f"a body of at most {most:,} bytes", got, "send it in smaller parts")

    def _failed(self, error: Failure) -> Answer:
        headers = [(name.encode(), value.encode()) for name, value in error.headers.items()]
        if self.unread and self.method not in ("GET", "HEAD"):
            headers += _CLOSE
        if self.failed is not None:
            page = self.failed(error, self.request_id)
            return page._replace(headers=[*page.headers, *headers])
        return Answer(error.status, error_body(error, self.request_id), JSON, headers)

    def _broken(self, error: Exception) -> Answer:
        self.service.log.error(
            "failed",
            path=self.scope["path"][:LONGEST_PATH],
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
        self.status = found.status
        body = found.body
        size = body.stat().st_size if isinstance(body, Path) else len(body)
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
        if self._allowed_origin():
            assert self.origin is not None
            headers += [(b"access-control-allow-origin", self.origin), (b"vary", b"Origin")]
        if self.service.stopping and b"connection" not in given:
            headers += _CLOSE
        await self.send({"type": "http.response.start", "status": found.status, "headers": headers})
        if isinstance(body, Path):
            await self._write_file(body)
        else:
            # A caller that is still sending would lose the connection before it reads the answer.
            linger = self.unread and found.status >= 400 and found.status != 408
            linger = linger and self.method not in ("GET", "HEAD")
            await self.send({"type": "http.response.body", "body": body, "more_body": linger})
            if linger:
                await self._linger()
                await self.send({"type": "http.response.body", "body": b""})

    async def _write_file(self, path: Path) -> None:
        with path.open("rb") as file:
            while self.method != "HEAD":
                chunk = await asyncio.to_thread(file.read, FILE_CHUNK)
                if not chunk:
                    break
                await self.send({"type": "http.response.body", "body": chunk, "more_body": True})
        await self.send({"type": "http.response.body", "body": b""})

    async def _linger(self) -> None:
        """Read some of what is still sent: if the connection were closed at once, a caller that is
        still sending would see a broken connection instead of the answer.
        """
        size = 0
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                while size < LINGER_BYTES:
                    message = await self.receive()
                    size += len(message.get("body", b""))
                    if message["type"] == "http.disconnect" or not message.get("more_body", False):
                        return
        except TimeoutError:
            return

    def _note(self) -> None:
        service, seconds = self.service, time.perf_counter() - self.started
        method = self.method if self.method in _METHODS else "other"
        service.metrics.request(self.route, method, self.status, seconds)
        if service.log.requests:
            client = self.scope.get("client")
            service.log.info(
                "request",
                method=self.method,
                path=self.scope["path"][:LONGEST_PATH],
                status=self.status,
                ms=round(1000 * seconds, 2),
                client=client[0] if client else None,
                key=self.key.name if self.key else None,
                request_id=self.request_id,
            )


_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT")


def _text(value: bytes | None) -> str:
    return (value or b"").decode("latin-1")
