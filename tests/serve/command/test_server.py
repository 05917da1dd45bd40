"""The server as a process of its own: sockets, signals, what it imports, and its commands."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from served import event

from modalign_serve.command import bench
from modalign_serve.command.bench import Running, running

LIST = "/v1/models/shop/recommend"


@pytest.fixture(scope="module")
def live(shops: Path) -> Iterator[Running]:
    with running(
        [str(shops / "shop")], "--timeout", "0.6", "--max-body", "100000", "--allow-host", "x"
    ) as found:
        yield found


def post(live: Running, path: str, body: Any) -> Any:
    request = urllib.request.Request(live.url + path, json.dumps(body).encode(), method="POST")
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def exchange(live: Running, *parts: bytes, pause: float = 0.0) -> bytes:
    """Send parts over one connection and read until the service closes it."""
    with socket.create_connection(("127.0.0.1", live.port), timeout=10) as sock:
        for part in parts:
            sock.sendall(part)
            time.sleep(pause)
        found = b""
        while chunk := sock.recv(65536):
            found += chunk
        return found


def head(length: int | str, *more: str) -> bytes:
    lines = [f"POST {LIST} HTTP/1.1", "host: x", f"content-length: {length}", *more, "", ""]
    return "\r\n".join(lines).encode()


@pytest.mark.slow
def test_a_body_of_a_hundred_megabytes_is_refused_before_it_is_read(live: Running) -> None:
    begun, sent = time.monotonic(), 0
    with socket.create_connection(("127.0.0.1", live.port), timeout=10) as sock:
        sock.sendall(head(100_000_000))
        answer = b""
        while b"}}" not in answer:
            answer += sock.recv(65536)
        try:
            while sent < 100_000_000:
                sent += sock.send(bytes(65536))
        except OSError:
            pass
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"100,000,000 bytes" in answer
    assert b"connection: close" in answer
    assert sent < 30_000_000
    assert time.monotonic() - begun < 8


@pytest.mark.slow
def test_a_body_without_a_length_is_cut_at_the_limit(live: Running) -> None:
    first = f"POST {LIST} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    chunk = b"ffff\r\n" + bytes(65535) + b"\r\n"
    answer = exchange(live, first, chunk, chunk, b"0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413")


@pytest.mark.slow
def test_slow_callers_are_not_waited_for(live: Running) -> None:
    assert exchange(live, b"POST /v1") == b""
    assert exchange(live, head(10), b"{").startswith(b"HTTP/1.1 408")
    assert exchange(live, b"") == b""
    # A letter now and then does not put it off.
    begun = time.monotonic()
    assert exchange(live, b"G", b"E", b"T", pause=0.15) == b""
    assert time.monotonic() - begun < 0.9


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HTTP/1.1\r\nx: " + b"a" * 100_000, 431),
        (b"\x16\x03\x01\x02\x00\x01\x00", 400),
        (b"HELLO\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\nhost: x\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\ncontent-length: -5\r\n\r\n", 400),
    ],
    ids=["long head", "TLS", "words", "raw path", "negative length"],
)
def test_what_is_no_request(live: Running, sent: bytes, status: int) -> None:
    answer = exchange(live, sent)
    assert answer.startswith(f"HTTP/1.1 {status}".encode())
    assert b"connection: close" in answer


def test_two_lengths_are_one_request(live: Running) -> None:
    hidden = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"
    sent = head(len(hidden) + 5, "transfer-encoding: chunked") + b"0\r\n\r\n" + hidden
    answer = exchange(live, sent)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"connection: close" in answer


def test_a_connection_serves_many_requests(live: Running) -> None:
    body = b'{"user_id": "u1"}'
    last = head(len(body), "connection: close") + body
    answer = exchange(live, (head(len(body)) + body) * 3, last)
    assert answer.count(b"HTTP/1.1 200") == 4


def test_a_caller_that_goes_away_harms_nobody(live: Running) -> None:
    for sent in (head(1000) + b"{", head(17) + b'{"user_id": "u1"}'):
        with socket.create_connection(("127.0.0.1", live.port)) as sock:
            sock.sendall(sent)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert post(live, LIST, {"user_id": "u1"})["items"]


def test_load_from_another_process(live: Running) -> None:
    bodies = [json.dumps({"user_id": f"u{n}"}) for n in range(10)]
    found = asyncio.run(bench.call(live.port, LIST, bodies, connections=4, seconds=0.3))
    assert found["requests"] > 50
    assert found["failed"] == 0
    assert 0 < found["p50_ms"] <= found["p99_ms"] <= found["slowest_ms"]
    bad = asyncio.run(bench.call(live.port, LIST, ["{}"], connections=1, seconds=0.05))
    assert bad["failed"] == bad["requests"]


@pytest.mark.slow
def test_sigterm_answers_what_is_in_flight(shops: Path, tmp_path: Path) -> None:
    store = str(tmp_path / "f.sqlite")
    with running(
        [str(shops / "shop")], "--feedback", store, "--drain", "0.4", "--allow-host", "x"
    ) as live:
        answered: list[str] = []
        refused = threading.Event()

        def feed() -> None:
            for n in range(100_000):
                try:
                    assert post(live, "/v1/feedback", [event(f"e{n}")])["new"] == 1
                except (ConnectionError, urllib.error.URLError):
                    # Reset: it waited to be accepted when the service stopped listening.
                    refused.set()
                    return
                answered.append(f"e{n}")

        # One request whose body is still on its way when the service is told to end.
        sock = socket.create_connection(("127.0.0.1", live.port), timeout=10)
        body = b'{"user_id": "u1"}'
        sock.sendall(head(len(body)) + body[:5])
        feeder = threading.Thread(target=feed)
        feeder.start()
        time.sleep(0.3)
        live.process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
        sock.sendall(body[5:])
        assert sock.recv(65536).startswith(b"HTTP/1.1 200")
        sock.close()
        feeder.join(20)
        assert refused.is_set()
        assert live.process.wait(20) == 0
    with running([str(shops / "shop")], "--feedback", store) as live:
        again = post(live, "/v1/feedback", [event(one) for one in answered[-1000:]])
        assert again["new"] == 0
        assert len(answered) > 10


@pytest.mark.slow
def test_sighup_reads_artifacts_again(shops: Path, tmp_path: Path) -> None:
    shutil.copytree(shops / "shop", tmp_path / "shop")
    with running([str(tmp_path / "shop")]) as live:
        before = post(live, LIST, {"user_id": "u1"})["version"]
        shutil.copytree(shops / "shop-2", tmp_path / "next")
        (tmp_path / "shop").rename(tmp_path / "old")
        (tmp_path / "next").rename(tmp_path / "shop")
        live.process.send_signal(signal.SIGHUP)
        until = time.monotonic() + 10
        while post(live, LIST, {"user_id": "u1"})["version"] == before:
            assert time.monotonic() < until
            time.sleep(0.02)


IMPORTED = """
import sys, threading, os, signal, time, urllib.request, json
from modalign.cli import main

folder, store, port = sys.argv[1:]

def ask():
    while not ("modalign_serve.command.server" in sys.modules):
        time.sleep(0.01)
    for _ in range(500):
        try:
            body = json.dumps({"user_id": "u1", "diversity": 0.5}).encode()
            url = f"http://127.0.0.1:{port}/v1/models/shop/recommend"
            urllib.request.urlopen(url, body, timeout=5).read()
            break
        except OSError:
            time.sleep(0.02)
    heavy = ("torch", "lightning_fabric", "polars", "pyarrow", "sklearn", "matplotlib", "scipy")
    print(json.dumps([name for name in heavy if name in sys.modules]), flush=True)
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=ask).start()
sys.argv = ["modalign", "serve", folder, "--feedback", store, "--port", port]
main.run()
"""


@pytest.mark.slow
def test_the_serving_process_has_no_torch(shops: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [str(shops / "shop"), str(tmp_path / "f.sqlite"), str(port)]
    ended = subprocess.run(
        [sys.executable, "-c", IMPORTED, *words], capture_output=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr.decode()
    assert json.loads(ended.stdout) == []


@pytest.mark.slow
def test_openapi_is_true_says_schemathesis(shops: Path, tmp_path: Path) -> None:
    from modalign_serve.service.keys import new_key

    word = new_key(tmp_path / "keys", "boss", "admin")
    both = [f"shop={shops / 'shop'}", f"other={shops / 'shop-2'}"]
    with running(both, "--keys", str(tmp_path / "keys")) as live:
        ended = subprocess.run(
            [
                Path(sys.executable).with_name("schemathesis"), "run", live.url + "/openapi.json",
                "--max-examples", "4", "--seed", os.environ.get("SCHEMATHESIS_SEED", "5"),
                "-H", f"Authorization: Bearer {word}", "--generation-database", "none",
                # Starts a process each time; its parameter is tried in test_bad_queries.
                "--exclude-path", "/v1/feedback/export",
            ],
            capture_output=True, cwd=tmp_path, timeout=120, check=False,
        )  # fmt: skip
    assert ended.returncode == 0, ended.stdout.decode()[-6000:]
