"""A request, an answer, and the table of the functions that answer requests."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import msgspec

from modalign_serve.errors import Failure
from modalign_serve.service.keys import Key

JSON = "application/json"
_encode = msgspec.json.Encoder().encode


class Answer(NamedTuple):
    """A complete answer.

    Attributes:
        body: its bytes, or the path of a file to send.
        content_type: empty for none.
        after: called when the answer is sent, or sending failed.
    """

    status: int
    body: bytes | Path
    content_type: str = JSON
    headers: Sequence[tuple[bytes, bytes]] = ()
    after: Callable[[], None] | None = None


def answer(value: Any, status: int = 200) -> Answer:
    """A value (a Struct, a dictionary) as JSON."""
    return Answer(status, _encode(value))


def error_body(failure: Failure, request_id: str) -> bytes:
    """The JSON of a failure, by the schema `Error` of the API.

    Example:
        >>> failure = Failure(404, "a known user", "'x'", "send items instead")
        >>> error_body(failure, "r1").decode()[:38]
        '{"error":{"status":404,"expected":"a k'
    """
    facts = {
        "status": failure.status,
        "expected": failure.expected,
        "got": failure.got,
        "fix": failure.fix,
        "request_id": request_id,
    }
    return _encode({"error": facts})


@dataclass(slots=True)
class Call:
    """One request that was read and is permitted.

    Attributes:
        method, path: as they were sent; the path without its query.
        params: parts of the path by their names in the table.
        headers: raw pairs.
        key: that was sent with it, if the service has keys.
        request_id: for logs and for the caller.
    """

    method: str
    path: str
    params: Mapping[str, str]
    query: bytes
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes
    key: Key | None
    request_id: str

    def arguments(self, known: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
        """The values of the query, each converted by its function.

        Raises:
            Failure: 422 if a name is unknown or sent twice, or its value is invalid.
        """
        found: dict[str, Any] = {}
        pairs = parse_qsl(self.query.decode("latin-1"), keep_blank_values=True)
        for name, value in pairs:
            if name not in known or name in found:
                listed = ", ".join(known) or "none"
                got = f"{name!r} twice" if name in found else repr(name)
                raise Failure(422, f"query parameters {listed}, once each", got, "leave it out")
            try:
                found[name] = known[name](value)
            except ValueError as error:
                raise Failure(422, str(error), repr(value), f"change {name}") from error
        return found


Handler = Callable[[Call], Awaitable[Answer]]


@dataclass(frozen=True)
class Parameter:
    """A parameter of the path or query, for the OpenAPI document."""

    name: str
    schema: Mapping[str, Any]
    place: str = "path"
    description: str = ""


@dataclass(frozen=True)
class Endpoint:
    """One method of one path.

    Attributes:
        method, path: such as POST, /v1/models/{name}/recommend.
        access: "open" to all, "use" with any key if the service has keys, "admin" only with an
            administrator's key.
        takes: type of the JSON body, or None.
        gives: type of the JSON answer, or the content type of another answer.
        statuses: of errors it may answer with, besides those that any endpoint may.
        example: of a body.
        failed: makes the answer from a failure and the request's id, if it is not JSON.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    access: str = "use"
    takes: Any = None
    gives: Any = None
    parameters: Sequence[Parameter] = ()
    statuses: Sequence[int] = ()
    example: Any = None
    failed: Callable[[Failure, str], Answer] | None = None


@dataclass(frozen=True)
class Table:
    """All endpoints. `{name}` in a path stands for one part, `{name:path}` for all the rest.

    Requests are matched against it, and the OpenAPI document is written from it.
    """

    endpoints: Sequence[Endpoint]

    def by_path(self) -> dict[str, dict[str, Endpoint]]:
        """Endpoints by path, and then by method."""
        found: dict[str, dict[str, Endpoint]] = {}
        for one in self.endpoints:
            found.setdefault(one.path, {})[one.method] = one
        return found
