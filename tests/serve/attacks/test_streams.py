"""Broken and endless HTTP over raw sockets, against a server in a process of its own."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from attacking import peak

from modalign_serve.artifact.sample import small_artifact
from modalign_serve.artifact.write import write_artifact
from modalign_serve.command import server
from modalign_serve.command.bench import Running, resident, running

LIST = "/v1/models/shop/recommend"
LIMIT = 0.5
"""Seconds that the server waits for a caller."""


@pytest.fixture
def opened() -> Iterator[contextlib.ExitStack]:
    """Closes the sockets of a test."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("streams") / "shop"
    write_artifact(folder, small_artifact(1000, 4000, 8, mean_seen=4), {})
    with running([str(folder)], "--timeout", str(LIMIT)) as found:
        yield found


def connected(live: Running, buffer: int | None = None) -> socket.socket:
    sock = socket.socket()
    if buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    sock.settimeout(10)
    sock.connect(("127.0.0.1", live.port))
    return sock


def rest(sock: socket.socket, seconds: float) -> bytes:
    """All that comes until the server closes the connection, which it must within some seconds."""
    found, until = b"", time.monotonic() + seconds
    while True:
        sock.settimeout(max(0.01, until - time.monotonic()))
        try:
            piece = sock.recv(65536)
        except ConnectionError:
            return found
        if not piece:
            return found
        found += piece


def held(live: Running, sock: socket.socket) -> bool:
    """Whether the server's end of a connection still exists."""
    here, there = f":{live.port:04X}", f":{sock.getsockname()[1]:04X}"
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    # Column 3 is the state; 06 is TIME_WAIT, which holds no data.
    return any(
        line[1].endswith(here) and line[2].endswith(there) and line[3] != "06" for line in lines
    )


def healthy(live: Running) -> float:
    """Seconds of one answer of `/health`."""
    started = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", live.port, timeout=10)
    connection.request("GET", "/health")
    assert connection.getresponse().status == 200
    connection.close()
    return time.monotonic() - started


HEAD = f"POST {LIST} HTTP/1.1\r\nhost: localhost\r\n".encode()
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
ENDLESS = {
    "trailers": (CHUNKED + b"0\r\n", b"a: " + b"b" * 60_000 + b"\r\n"),
    "many short trailers": (CHUNKED + b"0\r\n", b"a: b\r\n" * 10_000),
    "a trailer": (CHUNKED + b"0\r\na: ", b"b" * 60_000),
    "a chunk's extension": (CHUNKED + b"5;a=", b"b" * 60_000),
    "a chunk's length": (CHUNKED, b"0" * 60_000),
    "headers": (HEAD, b"a: " + b"b" * 60_000 + b"\r\n"),
    "a header": (HEAD + b"a: ", b"b" * 60_000),
    "a path": (b"GET /", b"b" * 60_000),
    "empty lines": (b"", b"\r\n" * 30_000),
    "a body": (HEAD + b"content-length: 999999999\r\n\r\n", b" " * 60_000),
    "chunks": (CHUNKED, b"ea60\r\n" + b" " * 60_000 + b"\r\n"),
}


@pytest.mark.parametrize("what", ENDLESS)
def test_what_never_ends_is_cut_off(live: Running, what: str) -> None:
    first, again = ENDLESS[what]
    before, sent = peak(live), 0
    with connected(live) as sock:
        sock.sendall(first)
        until = time.monotonic() + LIMIT + 5
        with contextlib.suppress(ConnectionError):
            while time.monotonic() < until:
                sock.sendall(again)
                sent += len(again)
        assert time.monotonic() < until, f"{sent / 1e6:.0f} MB taken"
    assert peak(live) - before < 20e6
    assert healthy(live) < 0.5


WAITING = {
    "nothing": b"",
    "half a head": b"GET / HT",
    "half a header": b"GET /health HTTP/1.1\r\nhost: loc",
    "an answer": b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n",
    "a line after an answer": b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n\r\n",
    "half a body": HEAD + b"content-length: 9\r\n\r\n{",
    "half a body of GET": b"GET /health HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n{",
    "half a chunk": CHUNKED + b"9\r\n{",
    "half a trailer": CHUNKED + b"0\r\na: b",
    "no chunk": CHUNKED,
}


def test_who_falls_silent_is_not_waited_for(live: Running, opened: contextlib.ExitStack) -> None:
    socks = {what: opened.enter_context(connected(live)) for what in WAITING}
    for what, sock in socks.items():
        sock.sendall(WAITING[what])
    started = time.monotonic()
    for what, sock in socks.items():
        answer = rest(sock, LIMIT + 5)
        if "body" not in what and "chunk" not in what and "trailer" not in what:
            assert answer.count(b"HTTP/1.1 ") == ("answer" in what), what
        sock.close()
    assert time.monotonic() - started < LIMIT + 5


@pytest.mark.slow
def test_silent_connections_lock_nobody_out(live: Running, opened: contextlib.ExitStack) -> None:
    socks = [opened.enter_context(connected(live)) for _ in range(server.MAX_CONNECTIONS + 20)]
    for sock in socks:
        sock.sendall(b"GET /health HTTP/1.1\r\n")
    assert healthy(live) < LIMIT + 5


@pytest.mark.slow
def test_large_answers_that_are_not_read_are_given_up(
    live: Running, opened: contextlib.ExitStack
) -> None:
    users = [f"u{n}" for n in range(1000)]
    body = json.dumps({"user_ids": users, "k": 50, "fields": ["title", "category", "price"]})
    before = resident(live.pid)
    socks = [opened.enter_context(connected(live, 4096)) for _ in range(3)]
    for sock in socks:
        sock.sendall(HEAD + f"content-length: {len(body)}\r\n\r\n{body}".encode())
    assert healthy(live) < 0.5
    # Making the answers takes seconds on a busy machine.
    until = time.monotonic() + LIMIT + 15
    while any(held(live, sock) for sock in socks):
        assert time.monotonic() < until, "the server still holds the connections"
        time.sleep(0.05)
    for sock in socks:
        head, _, got = rest(sock, 5).partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        assert length > 4_000_000
        assert len(got) < length
    assert resident(live.pid) - before < 100e6


@pytest.mark.slow
def test_short_answers_that_are_not_read_are_given_up(
    live: Running, opened: contextlib.ExitStack
) -> None:
    sock = opened.enter_context(connected(live, 4096))
    sock.setblocking(False)
    asked = b"GET /docs HTTP/1.1\r\nhost: localhost\r\n\r\n"
    with contextlib.suppress(OSError):
        for _ in range(2000):
            sock.send(asked)
    until = time.monotonic() + LIMIT + 5
    while held(live, sock):
        assert time.monotonic() < until, "the server still holds the connection"
        time.sleep(0.05)


@pytest.mark.parametrize("protocol", ["h2c", "websocket", "TLS/1.0", "h2c, websocket"])
def test_an_upgrade_is_ignored(live: Running, protocol: str) -> None:
    hidden = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n"
    head = f"upgrade: {protocol}\r\nconnection: upgrade, http2-settings\r\nhttp2-settings: AAMA\r\n"
    key = "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n"
    length = f"content-length: {len(hidden)}\r\n\r\n"
    with connected(live) as sock:
        sock.sendall(HEAD + f"{head}{key}{length}".encode() + hidden)
        answer = rest(sock, LIMIT + 5)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert answer.startswith(b"HTTP/1.1 400"), "the body is read as this request's"


def test_http_2_is_not_spoken(live: Running) -> None:
    with connected(live) as sock:
        sock.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9))
        assert b"HTTP/1.1 2" not in rest(sock, LIMIT + 5)


BODY = b'{"user_id": "u1", "k": 3}'
WHOLE = (
    HEAD + f"content-length: {len(BODY)}\r\nx-request-id: a\r\n\r\n".encode() + BODY,
    CHUNKED + b"d\r\n" + BODY[:13] + b"\r\nc\r\n" + BODY[13:] + b"\r\n0\r\n\r\n",
    b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\naccept: */*\r\n\r\n",
    b"HEAD /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n",
    b"GET /page/recommend?model=shop&user=u1 HTTP/1.1\r\nhost: localhost\r\n\r\n",
)
BITS = (
    *(b"\r\n", b"\r\n\r\n", b"\0", b"\xff" * 9, b"0\r\n\r\n", b":", b" ", b"%00", b"%2f..", b"-1"),
    *(b"content-length: 7\r\n", b"transfer-encoding: chunked\r\n", b"upgrade: h2c\r\n", b"9" * 30),
)


def mutated(rng: random.Random) -> bytes:
    """A stream of one or two requests with some faults."""
    stream = bytearray(b"".join(rng.choices(WHOLE, k=rng.choice((1, 1, 2)))))
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        at = rng.randrange(len(stream) + 1)
        way = rng.randrange(5)
        if way == 0 and at < len(stream):
            stream[at] = rng.randrange(256)
        elif way == 1:
            del stream[at : at + rng.choice((1, 2, 10))]
        elif way == 2:
            stream[at:at] = rng.choice(BITS)
        elif way == 3:
            stream[at:at] = stream[rng.randrange(len(stream) + 1) :][:20]
        else:
            del stream[at:]
        if not stream:
            return b"\r\n"
    return bytes(stream)


@pytest.mark.slow
def test_ten_thousand_mutated_streams(live: Running, opened: contextlib.ExitStack) -> None:
    rng = random.Random(7)
    before, started = resident(live.pid), time.monotonic()
    for _ in range(200):
        socks = []
        for _ in range(50):
            sock = opened.enter_context(connected(live))
            with contextlib.suppress(ConnectionError):
                sock.sendall(mutated(rng))
                sock.shutdown(socket.SHUT_WR)
            socks.append(sock)
        for sock in socks:
            answer = rest(sock, LIMIT + 5)
            assert b"HTTP/1.1 5" not in answer
            sock.close()
        assert time.monotonic() - started < 60
    assert healthy(live) < 0.5
    assert resident(live.pid) - before < 50e6
