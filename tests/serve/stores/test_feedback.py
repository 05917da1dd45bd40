"""Feedback: durable before the answer, once for each id, seen by the next call."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from served import Asked, event, serving

from modalign_serve.errors import ConfigError, DataError, Failure
from modalign_serve.ranker.ranker import Ranker
from modalign_serve.service.schemas import Kind
from modalign_serve.stores import feedback as feedback_module
from modalign_serve.stores.export import to_parquet
from modalign_serve.stores.feedback import KINDS, Feedback
from modalign_serve.stores.stores import SqliteStore, StoredEvent, StoreFailed, Written, open_store


def rows(n: int, start: int = 0) -> list[StoredEvent]:
    return [
        StoredEvent(f"e{k}", "u1", f"i{k % 7}", "click", k, 1000 + k)
        for k in range(start, start + n)
    ]


def test_kinds_are_those_of_the_api() -> None:
    assert list(KINDS) == list(Kind.__args__)  # type: ignore[attr-defined]


def test_events_count_once(asked: Asked) -> None:
    events = [event("a"), event("b"), event("a")]
    first = asked.post("/v1/feedback", events).json()
    assert first == {"received": 3, "new": 2, "duplicates": 1, "unknown_items": 0}
    again = asked.post("/v1/feedback", [*events, event("c", item="strange")]).json()
    assert again == {"received": 4, "new": 1, "duplicates": 3, "unknown_items": 1}
    kept = [row for chunk in asked.service.feedback.store.rows() for row in chunk]
    assert [(row.event_id, row.item_id) for row in kept] == [
        ("a", "i1"), ("b", "i1"), ("c", "strange")
    ]  # fmt: skip


def test_the_next_list_knows_what_was_liked_and_what_was_hidden(asked: Asked, shops: Path) -> None:
    before = asked.recommend({"user_id": "u3", "k": 40})
    liked, hidden, viewed = before[4], before[1], before[2]
    asked.post("/v1/feedback", [
        event("1", "u3", liked, "buy"),
        event("2", "u3", hidden, "hide"),
        event("3", "u3", viewed, "view"),
    ])  # fmt: skip
    after = asked.recommend({"user_id": "u3", "k": 40})
    assert set(before) - set(after) == {liked, hidden}
    ranker = Ranker.open(shops / "shop")
    ranker.update({"u3": [liked]})
    expected = [one for one in ranker.recommend(["u3"], 40).ids() if one != hidden]
    assert after == expected
    assert [one for one in before if one in after] != after, "the vector has moved too"


def test_somebody_new_is_folded_in(asked: Asked, shops: Path) -> None:
    unknown = {"user_id": "neu", "on_unknown": "error"}
    assert asked.post("/v1/models/shop/recommend", unknown).status_code == 404
    asked.post("/v1/feedback", [event("1", "neu", "i3"), event("2", "neu", "i8", "like")])
    expected = Ranker.open(shops / "shop").recommend_for_items(["i3", "i8"], 10).ids()
    assert asked.recommend({"user_id": "neu"}) == expected
    asked.post("/v1/feedback", [event("3", "sulky", "i3", "dislike")])
    answer = asked.post("/v1/models/shop/recommend", {"user_id": "sulky"}).json()
    assert answer["basis"] == "popular"
    assert "i3" not in [one["item_id"] for one in answer["items"]]


def test_feedback_outlives_the_process(shops: Path, tmp_path: Path) -> None:
    store = tmp_path / "f.sqlite"
    with serving({"shop": shops / "shop"}, store) as asked:
        asked.post("/v1/feedback", [event("1", "u3", "i5"), event("2", "neu", "i3")])
        lists = [asked.recommend({"user_id": user}) for user in ("u3", "neu")]
    with serving({"shop": shops / "shop"}, store) as asked:
        assert [asked.recommend({"user_id": user}) for user in ("u3", "neu")] == lists
        assert asked.post("/v1/feedback", [event("1", "u3", "i5")]).json()["duplicates"] == 1


def test_many_requests_share_a_commit(tmp_path: Path) -> None:
    class Counted(SqliteStore):
        commits = 0

        def write(self, batches: Sequence[Sequence[StoredEvent]]) -> list[Written]:
            self.commits += 1
            time.sleep(0.05)  # a slow disk, during which the others gather
            return super().write(batches)

    store = Counted(tmp_path / "f.sqlite")

    async def many() -> list[int]:
        feedback = Feedback(store)
        feedback.start()
        found = await asyncio.gather(*(feedback.record(rows(3, 3 * n)) for n in range(40)))
        await feedback.close()
        return list(found)

    assert asyncio.run(many()) == [3] * 40
    assert store.commits <= 3


class Failing:
    """A store that refuses some event, or everything."""

    def __init__(self, store: SqliteStore, poison: str | None) -> None:
        self.store, self.poison = store, poison

    def write(self, batches: Sequence[Sequence[StoredEvent]]) -> list[Written]:
        if self.poison is None or any(r.event_id == self.poison for b in batches for r in b):
            raise StoreFailed("no space left")
        return self.store.write(batches)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


def test_one_bad_write_does_not_spoil_the_others(tmp_path: Path) -> None:
    async def both() -> list[Any]:
        feedback = Feedback(Failing(SqliteStore(tmp_path / "f.sqlite"), "e5"))
        feedback.start()
        work = [feedback.record(rows(2, start)) for start in (0, 2, 4, 6)]
        found = await asyncio.gather(*work, return_exceptions=True)
        await feedback.close()
        return found

    found = asyncio.run(both())
    assert [found[0], found[1], found[3]] == [2, 2, 2]
    assert isinstance(found[2], Failure)
    assert found[2].status == 503
    assert "no space left" not in str(found[2])
    kept = [r.event_id for chunk in SqliteStore(tmp_path / "f.sqlite").rows() for r in chunk]
    assert sorted(kept) == ["e0", "e1", "e2", "e3", "e6", "e7"]


def test_what_was_not_kept_is_not_seen(asked: Asked) -> None:
    asked.service.feedback.store = Failing(asked.service.feedback.store, None)  # type: ignore[arg-type, assignment]
    logged = len(asked.log())
    before = asked.recommend({"user_id": "u3"})
    answer = asked.post("/v1/feedback", [event("1", "u3", before[0])])
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert asked.recommend({"user_id": "u3"}) == before
    assert "no space left" not in answer.text
    lines = [line for line in asked.log()[logged:] if line["level"] == "error"]
    assert [line["reason"] for line in lines] == ["no space left"]


class Held(SqliteStore):
    """A store that writes nothing until it is released."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.release, self.entered = threading.Event(), threading.Event()

    def write(self, batches: Sequence[Sequence[StoredEvent]]) -> list[Written]:
        self.entered.set()
        assert self.release.wait(20)
        return super().write(batches)

    def ids(self) -> list[str]:
        return [row.event_id for chunk in self.rows() for row in chunk]


def test_what_is_answered_503_is_not_stored_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feedback_module, "PATIENCE", 0.2)
    store = Held(tmp_path / "f.sqlite")

    async def attack() -> tuple[Any, Any]:
        feedback = Feedback(store)
        feedback.start()
        first = asyncio.create_task(feedback.record(rows(1)))  # the thread writes it, slowly
        await asyncio.to_thread(store.entered.wait, 5)
        late = await asyncio.gather(feedback.record(rows(1, 1)), return_exceptions=True)
        assert not first.done(), "its outcome is not known yet"
        store.release.set()
        done = await first
        await feedback.close()
        return done, late[0]

    done, late = asyncio.run(attack())
    assert done == 1
    assert isinstance(late, Failure)
    assert late.status == 503
    assert Held(tmp_path / "f.sqlite").ids() == ["e0"]


def test_waiting_events_are_bounded_in_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feedback_module, "MAX_WAITING", 20_000)
    store = Held(tmp_path / "f.sqlite")
    long = [StoredEvent(f"e{k}", "u" * 250, "i" * 250, "click", 0, 0) for k in range(50)]

    async def attack() -> list[Any]:
        feedback = Feedback(store)
        feedback.start()
        work = [asyncio.create_task(feedback.record([row])) for row in long]
        await asyncio.sleep(0.1)
        store.release.set()
        found = await asyncio.gather(*work, return_exceptions=True)
        again = await feedback.record(long[-1:])
        await feedback.close()
        assert again == 1
        return found

    found = asyncio.run(attack())
    refused = [one for one in found if isinstance(one, Failure)]
    assert 30 < len(refused) < 50
    assert {one.status for one in refused} == {503}
    assert len(Held(tmp_path / "f.sqlite").ids()) == 51 - len(refused)


def test_the_id_of_another_event_is_a_conflict(shops: Path, tmp_path: Path) -> None:
    store = tmp_path / "f.sqlite"
    others = [event("1", "u4", "i5"), event("1", "u3", "i6"), event("1", "u3", "i5", "hide")]
    for _ in range(2):  # before and after a restart
        with serving({"shop": shops / "shop"}, store) as asked:
            assert asked.post("/v1/feedback", [event("1", "u3", "i5")]).status_code == 200
            before = asked.recommend({"user_id": "u4"})
            for other in others:
                answer = asked.post("/v1/feedback", [event("2", "u4", before[0]), other])
                assert answer.status_code == 409, answer.text
                assert "'1'" in answer.json()["error"]["got"]
            both = [event("3", "u4", before[0]), event("3", "u5", before[0])]
            assert asked.post("/v1/feedback", both).status_code == 409
            assert asked.recommend({"user_id": "u4"}) == before
            assert len(list(asked.service.feedback.store.histories())) == 1


def test_a_mistyped_path_is_not_exported(tmp_path: Path) -> None:
    for address in (str(tmp_path / "none.sqlite"), f"sqlite:///{tmp_path}/none.sqlite"):
        with pytest.raises(DataError, match="does not exist"):
            to_parquet(address, tmp_path / "out.parquet")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_export_is_all_events_in_order(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "f.sqlite")
    given = rows(25_000)
    store.write([given[:10_000], given[10_000:]])
    out = tmp_path / "out.parquet"
    assert to_parquet(str(tmp_path / "f.sqlite"), out) == 25_000
    assert [tuple(row.values()) for row in pq.read_table(out).to_pylist()] == given
    assert to_parquet(f"sqlite:///{tmp_path / 'f.sqlite'}", out, since=1000 + 24_000) == 1000
    store.close()


@pytest.mark.slow
def test_export_over_http(shops: Path, tmp_path: Path) -> None:
    from modalign_serve.service.keys import new_key

    word = new_key(tmp_path / "keys", "boss", "admin")
    admin = {"Authorization": f"Bearer {word}"}
    store = tmp_path / "f.sqlite"
    with serving({"shop": shops / "shop"}, store, keys=tmp_path / "keys") as asked:
        asked.post("/v1/feedback", [event("1"), event("2", kind="view")], headers=admin)
        answer = asked.get("/v1/feedback/export", headers=admin)
        assert answer.status_code == 200, answer.text
        (tmp_path / "out.parquet").write_bytes(answer.content)
        table = pq.read_table(tmp_path / "out.parquet").to_pylist()
        assert [(row["event_id"], row["kind"]) for row in table] == [("1", "click"), ("2", "view")]
        late = asked.get(f"/v1/feedback/export?since={int(time.time()) + 9}", headers=admin)
        (tmp_path / "late.parquet").write_bytes(late.content)
        assert pq.read_table(tmp_path / "late.parquet").num_rows == 0


WRITER = """
import asyncio, sys
from pathlib import Path
from modalign_serve.stores.feedback import Feedback
from modalign_serve.stores.stores import StoredEvent, SqliteStore

async def one(feedback, worker, turn):
    for n in range(10**6):
        ids = [f"{turn}-{worker}-{n}-{k}" for k in range(5)]
        await feedback.record([StoredEvent(i, "u", "i", "click", 0, 0) for i in ids])
        print(*ids, sep="\\n", flush=True)

async def main():
    feedback = Feedback(SqliteStore(Path(sys.argv[1])))
    feedback.start()
    print("up", flush=True)
    await asyncio.gather(*(one(feedback, worker, sys.argv[2]) for worker in range(8)))

asyncio.run(main())
"""


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_when_the_process_is_killed(tmp_path: Path) -> None:
    path, acknowledged = tmp_path / "f.sqlite", set[str]()
    for turn in range(5):
        with (tmp_path / f"told-{turn}").open("w+") as told:
            writer = subprocess.Popen(
                [sys.executable, "-c", WRITER, str(path), str(turn)], stdout=told
            )
            until = time.monotonic() + 20
            while Path(told.name).stat().st_size < 2000 * (turn + 1):
                assert time.monotonic() < until
                assert writer.poll() is None
                time.sleep(0.003)
            writer.send_signal(signal.SIGKILL)
            writer.wait()
            told.seek(0)
            lines = told.read().split("\n")
            # The kill may have cut the last line; what it told of was kept nevertheless.
            acknowledged |= set(lines[1:-1])
        kept = [row.event_id for chunk in SqliteStore(path).rows() for row in chunk]
        assert len(kept) == len(set(kept))
        assert acknowledged <= set(kept)
    assert len(acknowledged) > 500


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("mysql://host/db", "mysql"),
        ("postgresql://nobody@127.0.0.1:9/none", "PostgreSQL"),
        ("/proc/none/f.sqlite", "/proc/none/f.sqlite"),
    ],
)
def test_addresses_that_cannot_be_used(address: str, told: str) -> None:
    with pytest.raises((ConfigError, DataError), match=told):
        open_store(address)


def test_a_file_that_is_no_database_is_refused_and_left(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("my notes, which are long enough to be no empty file\n" * 40)
    with pytest.raises(DataError, match=r"notes\.txt"):
        open_store(str(path))
    assert path.read_text().startswith("my notes")


def test_addresses_of_sqlite_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for address in ("a.sqlite", "sqlite:///b.sqlite", f"sqlite:///{tmp_path}/sub/c.sqlite"):
        open_store(address).close()
    assert [(tmp_path / name).is_file() for name in ("a.sqlite", "b.sqlite", "sub/c.sqlite")] == [
        True, True, True
    ]  # fmt: skip


def test_events_of_one_call_reach_the_log_without_ids(asked: Asked) -> None:
    asked.post("/v1/feedback", [event("secret-event", "secret-user")])
    assert "secret" not in json.dumps(asked.log())


def test_an_unknown_user_gets_what_is_popular(asked: Asked, shops: Path) -> None:
    ranker = Ranker.open(shops / "shop")
    popular = ranker.recommend_for_items([], 5).ids()
    path = "/v1/models/shop/recommend"
    one = asked.post(path, {"user_id": "stranger", "k": 5}).json()
    assert (one["basis"], [item["item_id"] for item in one["items"]]) == ("popular", popular)
    # Rules hold for popular lists as for all others.
    rest = asked.recommend({"user_id": "stranger", "k": 4, "exclude": popular[:1]})
    assert rest == popular[1:]
    nothing = asked.post(path, {"items": [], "k": 5}).json()
    assert (nothing["basis"], nothing["items"]) == ("popular", one["items"])
    several = {"user_ids": ["u1", "stranger"], "k": 5}
    lists = asked.post(path, several).json()["users"]
    assert [one["basis"] for one in lists] == ["trained", "popular"]
    refused = asked.post(path, several | {"on_unknown": "error"}).json()["users"]
    assert "error" in refused[1]
    assert "error" not in refused[0]


def test_a_view_makes_a_user_known_and_changes_no_list(asked: Asked) -> None:
    path, body = "/v1/models/shop/recommend", {"k": 5, "on_unknown": "error"}
    before = asked.recommend({"user_id": "u3", "k": 5})
    views = [event("v1", "looker", "i3", "view"), event("v2", "u3", before[0], "view")]
    assert asked.post("/v1/feedback", views).status_code == 200
    one = asked.post(path, {"user_id": "looker", **body})
    assert (one.status_code, one.json()["basis"]) == (200, "popular")
    assert asked.recommend({"user_id": "u3", "k": 5}) == before
