"""Limits of time and memory on the bodies that callers send and the answers that they read.

The server bounds heads, connections and what it buffers. This file ends the reading of a body that
does not arrive, and the sending of an answer that is not read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from modalign_serve.errors import Failure, unavailable

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

PIECE: Final = 64 * 1024
"""Bytes of an answer that are sent at a time."""
SLOWEST: Final = 100_000
"""Bytes of an answer that a caller must read per second, on average."""
MAX_BODIES: Final = 64 * 2**20
"""Maximum bytes of all bodies in memory; more are refused with 503."""
MAX_ANSWERS: Final = 256 * 2**20
"""Maximum bytes of all long answers that are being sent; more are refused with 503."""
LINGER_BYTES: Final = 8_000_000
LINGER_SECONDS: Final = 2.0


class Unread(Exception):
    """A caller does not read its answer."""


class Shared:
    """Memory that requests share.

    Args:
        most: bytes.
    """

    def __init__(self, most: int) -> None:
        self._most, self._taken = most, 0

    def take(self, size: int) -> None:
        """Take some bytes.

        Raises:
            Failure: 503 if they are not free.
        """
        if self._taken + size > self._most:
            raise unavailable(
                f"requests and answers of {self._taken / 2**20:.0f} MB at the same time",
                "send it again in a moment",
            )
        self._taken += size

    def give(self, size: int) -> None:
        """Give them back."""
        self._taken -= size


class Paced:
    """`send` of ASGI that cuts long answers into pieces and does not wait for ever.

    Args:
        send: of ASGI.
        seconds: maximum wait for a caller to read one piece.
        size: of the answer's body.
    """

    def __init__(self, send: Send, seconds: float, size: int) -> None:
        self._send, self._seconds = send, seconds
        self._whole = size <= PIECE
        self._until = asyncio.get_running_loop().time() + seconds + size / SLOWEST

    async def __call__(self, message: Message) -> None:
        """Send a message.

        Raises:
            Unread: the caller does not read.
        """
        body: bytes = message.get("body", b"")
        more: bool = message.get("more_body", False)
        if self._whole and not more:
            await self._send(message)
            return
        if message["type"] != "http.response.body" or len(body) <= PIECE:
            await self._within(message)
            return
        for start in range(0, len(body), PIECE):
            left = more or start + PIECE < len(body)
            piece = body[start : start + PIECE]
            await self._within({"type": message["type"], "body": piece, "more_body": left})

    async def _within(self, message: Message) -> None:
        now = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(min(self._seconds, self._until - now)):
                await self._send(message)
        except TimeoutError as error:
            raise Unread from error


class Body:
    """The body of one request; its bytes are taken from the room until `free`.

    Args:
        receive: of ASGI.
        room: of all bodies.

    Attributes:
        ended: nothing of it is still to come.
    """

    def __init__(self, receive: Receive, room: Shared) -> None:
        self._receive, self._room = receive, room
        self._size = 0
        self.ended = False

    async def read(self, most: int, seconds: float) -> bytes:
        """All of it.

        Args:
            most: maximum size.
            seconds: maximum time to arrive.

        Raises:
            Failure: 400 for a broken connection, 408 if it is late, 413 if it is too large, 503 if
                there is no room for it.
        """
        parts = []
        try:
            async with asyncio.timeout(seconds):
                more = True
                while more:
                    message = await self._receive()
                    if message["type"] == "http.disconnect":
                        self.ended = True
                        raise Failure(400, "a complete body", "a broken connection", "try again")
                    part: bytes = message.get("body", b"")
                    if self._size + len(part) > most:
                        raise too_large("more", most)
                    self._room.take(len(part))
                    self._size += len(part)
                    parts.append(part)
                    more = message.get("more_body", False)
        except TimeoutError as error:
            raise Failure(
                408, f"a body within {seconds:g} seconds", f"{self._size:,} bytes of it",
                "send it faster",
            ) from error  # fmt: skip
        self.ended = True
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def linger(self) -> None:
        """Read some of what is still sent: if the connection were closed at once, a caller that is
        still sending would see a broken connection instead of the answer.
        """
        size = 0
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                while size < LINGER_BYTES:
                    message = await self._receive()
                    size += len(message.get("body", b""))
                    if message["type"] == "http.disconnect" or not message.get("more_body", False):
                        return
        except TimeoutError:
            return

    def free(self) -> None:
        """Give its memory back."""
        self._room.give(self._size)
        self._size = 0


def too_large(got: str, most: int) -> Failure:
    """The failure of a body beyond the limit.

    Args:
        got: its size, or "more".
        most: the limit in bytes.
    """
    return Failure(413, f"a body of at most {most:,} bytes", got, "send it in smaller parts")
