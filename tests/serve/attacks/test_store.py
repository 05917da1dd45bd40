"""A store that fails under a server in a process of its own."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from attacking import ask, peak
from served import event

from modalign_serve.artifact.sample import small_artifact
from modalign_serve.artifact.write import write_artifact
from modalign_serve.command.bench import Running, running

LIST = "/v1/models/shop/recommend"
ITEM = {"item_id": "late", "vector": [1.0] * 8}


def together(live: Running, path: str, bodies: list[Any]) -> list[tuple[int, bytes]]:
    """Answers to requests that are sent at the same time."""
    found: list[tuple[int, bytes]] = []
    callers = [
        threading.Thread(target=lambda body=body: found.append(ask(live, "POST", path, body)))
        for body in bodies
    ]
    for one in callers:
        one.start()
    for one in callers:
        one.join()
    return found


@pytest.mark.slow
def test_a_locked_store_costs_little_and_keeps_no_secrets_open(shops: Path, tmp_path: Path) -> None:
    path = tmp_path / "f.sqlite"
    batches = [
        [event(f"{batch}-{n}" + "x" * 100, f"new{batch}", "i1") for n in range(1000)]
        for batch in range(80)
    ]
    log = tmp_path / "log"
    port = tmp_path / "port"
    words = [str(shops / "shop"), "--port", "0", "--port-file", str(port), "--feedback", str(path)]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "modalign_serve.command.main", "run", *words], stderr=out
        )
        try:
            until = time.monotonic() + 30
            while not port.exists():
                assert time.monotonic() < until
                time.sleep(0.02)
            live = Running(process.pid, int(port.read_text()), 0.0, process)
            assert ask(live, "POST", "/v1/feedback", [event("first")])[0] == 200
            lock = sqlite3.connect(path, isolation_level=None)
            lock.execute("BEGIN IMMEDIATE")
            before = peak(live)
            answers = together(live, "/v1/feedback", batches)
            assert {status for status, _ in answers} == {503}
            assert any(b"wait for the disk" in body for _, body in answers)
            assert not any(b"sqlite" in body.lower() or b"lock" in body for _, body in answers)
            assert peak(live) - before < 200e6
            assert ask(live, "POST", "/v1/models/shop/items", ITEM)[0] == 503
            lock.execute("ROLLBACK")
            lock.close()
            # Neither stored nor served.
            time.sleep(1)
            unknown = {"user_id": "new1", "on_unknown": "error"}
            assert ask(live, "POST", LIST, unknown)[0] == 404
            assert ask(live, "GET", "/v1/models/shop/items/late")[0] == 404
            # To send the same again is safe.
            status, body = ask(live, "POST", "/v1/feedback", batches[1])
            assert (status, json.loads(body)["new"]) == (200, 1000)
            assert ask(live, "POST", "/v1/models/shop/items", ITEM)[0] == 200
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            process.kill()
            process.wait()
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    causes = [line["reason"] for line in lines if line["level"] == "error"]
    assert any("locked" in cause for cause in causes)


@pytest.mark.slow
def test_an_id_means_one_event_also_after_a_restart(shops: Path, tmp_path: Path) -> None:
    path = str(tmp_path / "f.sqlite")
    other = [event("more", "u3"), event("e", "u2", "i2")]
    for turn in range(2):
        with running([str(shops / "shop")], "--feedback", path) as live:
            status, body = ask(live, "POST", "/v1/feedback", [event("e", "u1", "i1")])
            assert (status, json.loads(body)["new"]) == (200, 1 - turn)
            before = ask(live, "POST", LIST, {"user_id": "u2"})[1]
            assert ask(live, "POST", "/v1/feedback", other)[0] == 409
            assert ask(live, "POST", LIST, {"user_id": "u2"})[1] == before
    stored = sqlite3.connect(path)
    assert stored.execute("SELECT event_id, user_id FROM events").fetchall() == [("e", "u1")]
    stored.close()


@pytest.mark.parametrize(
    "address",
    [
        "host=127.0.0.1 port=1 dbname=shop user=shop password=swordfish connect_timeout=1",
        "host=127.0.0.1 port=1 password='sword fish' connect_timeout=1",
        "postgresql://shop:swordfish@127.0.0.1:1/shop?connect_timeout=1",
        "postgresql://shop@127.0.0.1:1/shop?password=swordfish&connect_timeout=1",
    ],
)
@pytest.mark.slow
def test_no_password_is_shown(shops: Path, address: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "modalign_serve.command.main", "run", str(shops / "shop"),
         "--port", "0", "--feedback", address],
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 2
    assert b"fish" not in ended.stdout + ended.stderr


@pytest.mark.slow
def test_sigterm_ends_a_server_that_ranks(tmp_path: Path) -> None:
    write_artifact(tmp_path / "shop", small_artifact(1000, 4000, 32, mean_seen=4), {})
    users = [f"u{n}" for n in range(50)]
    hard = {"user_ids": users, "k": 1000, "diversity": 0.9, "at_most_per": {"category": 900}}
    with running([str(tmp_path / "shop")]) as live:
        threads = [
            threading.Thread(target=together, args=(live, LIST, [hard] * 3)) for _ in range(2)
        ]
        for one in threads:
            one.start()
        time.sleep(0.5)
        started = time.monotonic()
        live.process.send_signal(signal.SIGTERM)
        assert live.process.wait(40) == 0
        assert time.monotonic() - started < 15
        for one in threads:
            one.join()
