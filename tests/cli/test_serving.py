"""`modalign serve` and its neighbours through the command line."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from calling import Cli, snapshot

from modalign_serve.artifact.sample import small_artifact
from modalign_serve.artifact.write import write_artifact
from modalign_serve.service.keys import Keys
from modalign_serve.stores.stores import SqliteStore, StoredEvent


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_artifact(tmp_path_factory.mktemp("artifacts") / "shop", small_artifact(20, 50, 8))


def test_a_key_is_shown_once(cli: Cli, tmp_path: Path) -> None:
    found = cli("serve-key", "till", "--keys", tmp_path / "keys")
    assert found.code == 0
    key = Keys.load(tmp_path / "keys").find(found.out.strip())
    assert key is not None
    assert (key.name, key.role) == ("till", "use")
    admin = cli("serve-key", "boss", "--keys", tmp_path / "keys", "--admin", "--json")
    told = json.loads(admin.out)
    assert told["role"] == "admin"
    again = cli("serve-key", "till", "--keys", tmp_path / "keys")
    assert again.code == 2
    assert "'till'" in again.err


@pytest.mark.slow
def test_feedback_to_parquet_to_data(cli: Cli, workshop: Path) -> None:
    store = SqliteStore(workshop / "f.sqlite")
    rows = [StoredEvent(f"e{n}", "somebody-new", str(n), "click", n, n) for n in range(4)]
    store.write([rows])
    store.close()
    wrote = cli("serve-feedback", "f.sqlite", "--out", "f.parquet", "--json")
    assert json.loads(wrote.out) == {"events": 4, "file": "f.parquet"}
    before = snapshot(workshop / "data" / "toy")
    made = cli("data", "append", "data/toy", "f.parquet", "--out", "data/next", "--json")
    assert made.code == 0, made.err
    assert json.loads(made.out)["info"]["appended"][0]["interactions"] == 4
    assert snapshot(workshop / "data" / "toy") == before
    again = cli("data", "append", "data/next", "f.parquet", "--out", "data/next", "--overwrite")
    assert again.code == 0, again.err  # a night without new pairs
    assert "all of them known" in again.out
    none = cli("data", "append", "data/toy", "f.parquet", "--out", "x", "--split", "rate")
    assert none.code == 2
    assert "did you mean 'ratio'" in none.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("{shop}", "{shop}"), "'shop' twice"),
        (("nowhere",), "nowhere"),
        (("a/b={shop}",), "'a/b'"),
        (("{shop}", "--port", "99999"), "port"),
        (("{shop}", "--split", "shop"), "NAME=0.9"),
        (("{shop}", "--split", "other=1"), "'other'"),
        (("{shop}", "--keys", "nokeys"), "nokeys"),
        (("{shop}", "--feedback", "mysql://x/y"), "mysql"),
        (("{shop}", "--log", "loud"), "'loud'"),
        (("{shop}", "--cors", "*"), "'*'"),
        (("{shop}", "--rate", "-1"), "--rate"),
        (("{shop}", "--port", "{taken}"), "{taken}"),
        (("{shop}", "--host", "no.such.host.invalid"), "no.such.host.invalid"),
    ],
)
def test_mistakes_end_with_words(
    cli: Cli, shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...], told: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        filled = [word.format(shop=shop, taken=port) for word in words]
        found = cli("serve", *filled)
    assert found.code == 2, found.err
    assert told.format(taken=port) in found.err
    assert "Traceback" not in found.err
    assert not list(tmp_path.glob("*.sqlite"))


@pytest.mark.slow
def test_load_is_measured(cli: Cli, shop: Path) -> None:
    found = cli("bench-serve", shop, "--seconds", "0.3", "--users", "5", "--json")
    assert found.code == 0, found.err
    told = json.loads(found.out)
    assert (told["users"], told["n_items"], told["failed"]) == (5, 50, 0)
    assert told["requests"] > 20
    assert 0 < told["p50_ms"] <= told["p99_ms"]
    assert 10 < told["memory_mb"] < 300
    shown = cli("bench-serve", shop, "--seconds", "0.2")
    assert "requests/s" in shown.out
    assert cli("bench-serve", "nowhere").code == 2
