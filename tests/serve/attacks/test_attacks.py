"""Attacks on a server in a process of its own."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attacking import ask
from served import event

from modalign_serve.artifact.sample import small_artifact
from modalign_serve.artifact.write import write_artifact
from modalign_serve.command.bench import Running, running

LIST = "/v1/models/shop/recommend"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server of a catalogue large enough for long work."""
    folder = tmp_path_factory.mktemp("large") / "shop"
    write_artifact(folder, small_artifact(1000, 4000, 32, mean_seen=4), {})
    with running([str(folder)]) as found:
        yield found


@contextlib.contextmanager
def health(live: Running) -> Iterator[list[float]]:
    """Seconds of `/health`, asked all the while."""
    seconds: list[float] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            started = time.monotonic()
            status, _ = ask(live, "GET", "/health")
            assert status == 200
            seconds.append(time.monotonic() - started)
            time.sleep(0.01)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield seconds
    finally:
        done.set()
        watcher.join()


def test_work_per_request_is_bounded(live: Running) -> None:
    users = [f"u{n}" for n in range(1000)]
    status, body = ask(live, "POST", LIST, {"user_ids": users, "k": 1000})
    assert status == 422
    assert b"50,000" in body
    items = [f"i{n}" for n in range(1000)]
    status, _ = ask(live, "POST", "/v1/models/shop/similar", {"item_ids": items, "k": 51})
    assert status == 422


@pytest.mark.slow
def test_the_largest_request_leaves_health_alone(live: Running) -> None:
    users = [f"u{n}" for n in range(1000)]
    with health(live) as seconds:
        asked = {"user_ids": users, "k": 50, "fields": ["title", "category", "price"]}
        status, body = ask(live, "POST", LIST, asked)
    assert status == 200, body[:300]
    assert len(json.loads(body)["users"]) == 1000
    assert max(seconds) < 0.5


@pytest.mark.slow
def test_diversity_and_limits_take_no_more_than_their_time(live: Running) -> None:
    users = [f"u{n}" for n in range(50)]
    asked = {"user_ids": users, "k": 1000, "diversity": 0.9, "at_most_per": {"category": 900}}
    found: list[int] = []

    def attack() -> None:
        found.append(ask(live, "POST", LIST, asked)[0])

    attackers = [threading.Thread(target=attack) for _ in range(3)]
    started = time.monotonic()
    with health(live) as seconds:
        for one in attackers:
            one.start()
        time.sleep(0.3)
        status, _ = ask(live, "POST", LIST, {"user_id": "u1"})
        assert status == 200
        for one in attackers:
            one.join()
    assert max(seconds) < 0.5
    assert set(found) <= {200, 503}
    assert time.monotonic() - started < 15


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example"])
def test_a_stranger_as_host_is_refused(live: Running, host: str) -> None:
    headers = {"Host": host, "Origin": f"http://{host}"}
    status, body = ask(live, "POST", "/v1/feedback", [event("1")], headers)
    assert (status, b"--allow-host" in body) == (421, True)
    assert ask(live, "GET", "/", headers=headers)[0] == 421
    for known in ("localhost", f"127.0.0.1:{live.port}", "[::1]", "10.1.2.3"):
        assert ask(live, "GET", "/v1/models", headers={"Host": known})[0] == 200


def test_other_machines_need_keys(shops: Path, tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "modalign_serve.command.main", "run", str(shops / "shop"),
         "--host", "0.0.0.0", "--port", "0", "--feedback", str(tmp_path / "f")],
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 2
    assert b"--allow-open" in ended.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_locked_store_ends_with_the_server(shops: Path, tmp_path: Path) -> None:
    path = tmp_path / "f.sqlite"
    found: list[int] = []
    with running([str(shops / "shop")], "--feedback", str(path)) as live:
        assert ask(live, "POST", "/v1/feedback", [event("kept")])[0] == 200
        lock = sqlite3.connect(path, isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")

        def attack() -> None:
            found.append(ask(live, "POST", "/v1/feedback", [event("late", "u2")])[0])

        attackers = [threading.Thread(target=attack) for _ in range(3)]
        for one in attackers:
            one.start()
        time.sleep(0.5)
        started = time.monotonic()
        live.process.send_signal(signal.SIGTERM)
        assert live.process.wait(40) == 0
        assert time.monotonic() - started < 30
        for one in attackers:
            one.join()
        lock.execute("ROLLBACK")
        ids = [row[0] for row in lock.execute("SELECT event_id FROM events")]
        lock.close()
    assert found == [503] * 3
    assert ids == ["kept"]


@pytest.mark.slow
@pytest.mark.parametrize("stderr", ["unread pipe", "closed pipe", "full disk"])
def test_a_log_that_cannot_be_written_stops_nothing(
    shops: Path, tmp_path: Path, stderr: str
) -> None:
    port_file = tmp_path / "port"
    words = ["run", str(shops / "shop"), "--port", "0", "--port-file", str(port_file),
             "--feedback", str(tmp_path / "f.sqlite")]  # fmt: skip
    with contextlib.ExitStack() as stack:
        out: Any = subprocess.PIPE
        if stderr == "full disk":
            out = stack.enter_context(Path("/dev/full").open("wb"))
        process = subprocess.Popen(
            [sys.executable, "-m", "modalign_serve.command.main", *words], stderr=out
        )
        try:
            until = time.monotonic() + 30
            while not port_file.exists():
                assert time.monotonic() < until
                assert process.poll() is None
                time.sleep(0.02)
            live = Running(process.pid, int(port_file.read_text()), 0.0, process)
            while True:
                with contextlib.suppress(ConnectionRefusedError):
                    ask(live, "GET", "/health")
                    break
                assert time.monotonic() < until
                time.sleep(0.02)
            if stderr == "closed pipe":
                assert process.stderr is not None
                process.stderr.close()
            started = time.monotonic()
            for n in range(600):
                assert ask(live, "GET", f"/{n}" + "x" * 30_000)[0] == 404
            assert time.monotonic() - started < 20
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            process.kill()
            process.wait()
            if process.stderr is not None:
                process.stderr.close()


DEEP = '{"a":' * 10_000 + "1" + "}" * 10_000
LISTS = "[" * 10_000 + "]" * 10_000


@pytest.mark.parametrize("body", [DEEP, LISTS, "5", '"x"', "null", "true", "[[5]]", '{"k": 1e400}'])
def test_no_body_is_an_error_of_the_service(live: Running, body: str) -> None:
    paths = ["/v1/recommend", LIST, "/v1/models/shop/similar", "/v1/feedback",
             "/v1/models/shop/items"]  # fmt: skip
    for path in paths:
        for sent in (body, f'{{"items": {body}, "where": {body}, "item_id": {body}}}'):
            connection = http.client.HTTPConnection("127.0.0.1", live.port, timeout=10)
            connection.request("POST", path, sent)
            answer = connection.getresponse()
            assert answer.status in (400, 422), (path, sent[:50], answer.read())
            connection.close()


@pytest.mark.parametrize("origin", ["http://[", "http://[::1", "null", "", "http://a b", "\xff"])
def test_no_origin_is_an_error_of_the_service(live: Running, origin: str) -> None:
    form = "application/x-www-form-urlencoded"
    for path in ("/page/new", "/page/key", "/page/forget", "/v1/feedback"):
        headers = {"Origin": origin, "Content-Type": form}
        assert ask(live, "POST", path, [], headers)[0] in (400, 403, 422)


@pytest.mark.parametrize("numbers", ['{"features": 5}', '{"features": [1]}', "[" * 10_000, "5",
                                     '{"features": {"text": "x"}}', '{"vector": "x"}'])  # fmt: skip
def test_no_form_is_an_error_of_the_service(live: Running, numbers: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", live.port, timeout=10)
    from urllib.parse import urlencode

    sent = urlencode({"model": "shop", "id": "new", "numbers": numbers})
    headers = {"Sec-Fetch-Site": "same-origin", "Content-Type": "application/x-www-form-urlencoded"}
    connection.request("POST", "/page/new", sent, headers)
    answer = connection.getresponse()
    assert answer.status in (400, 422), answer.read()[:500]
    connection.close()
