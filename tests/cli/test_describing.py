"""`modalign describe` as people and programs call it."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import polars as pl
import pytest
from calling import Cli, snapshot

from modalign.data.dataset import Dataset

KEY = "sk-never-to-be-seen"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """A server of chat completions; what it got, and which requests it is to refuse."""
    told: dict[str, Any] = {"prompts": [], "refuse": set()}
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number = len(told["prompts"])
                told["prompts"].append(sent["messages"][0]["content"])
            liked = ("red", "blue")[number % 2]
            answer = {"choices": [{"message": {"content": f"Likes {liked} [shoes]."}}]}
            self.send_response(400 if number in told["refuse"] else 200)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *args: Any) -> None:
            pass

    class Patient(ThreadingHTTPServer):
        request_queue_size = 64

    made = Patient(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    told["url"] = f"http://127.0.0.1:{made.server_port}/v1"
    yield told
    made.shutdown()
    made.server_close()
    thread.join()


def openai(server: dict[str, Any], *more: object) -> list[object]:
    return ["describe", "data/toy", "--provider", "openai", "--base-url", server["url"],
            "--model", "tiny", "--retries", 0, *more]  # fmt: skip


@pytest.mark.slow
def test_the_default_needs_no_network_and_no_model(workshop: Path, cli: Cli) -> None:
    got = cli("describe", "data/toy")
    assert got.code == 0, got.err
    assert "59 of 60" in got.out
    assert "59 template" in got.out
    assert "modalign describe data/toy --show 5" in got.err
    made = Dataset.load("data/toy").modalities["preference"]
    assert made.entity == "user"
    assert made.provenance["provider"] == "template"
    again = json.loads(cli("describe", "data/toy", "--json").out)
    assert again["skipped"]
    assert again["n_present"] == 59
    forced = json.loads(cli("describe", "data/toy", "--json", "--force").out)
    assert not forced["skipped"]


@pytest.mark.slow
def test_texts_are_shown_beside_the_items(workshop: Path, cli: Cli) -> None:
    cli("describe", "data/toy")
    before = snapshot(Path("data/toy"))
    got = cli("describe", "data/toy", "--show", 2)
    assert got.code == 0, got.err
    assert "user u0" in got.out
    assert "user u1" in got.out
    assert "user u2" not in got.out
    assert "Typical words:" in got.out
    found = json.loads(cli("describe", "data/toy", "--user", "u7", "--user", "u59", "--json").out)
    assert [one["user"] for one in found] == ["u7", "u59"]
    data = Dataset.load("data/toy")
    items = data.train.items[data.train.users == 7]
    assert sorted(found[0]["items"]) == sorted(data.titles().gather(items).to_list())
    assert (found[1]["text"], found[1]["items"]) == (None, [])
    # Square brackets of titles are no markup.
    assert "blue [hat] no." in cli("describe", "data/toy", "--show", 30).out
    assert snapshot(Path("data/toy")) == before


@pytest.mark.slow
def test_a_model_is_asked_once_and_the_key_shows_nowhere(
    workshop: Path, cli: Cli, server: dict[str, Any]
) -> None:
    got = cli(*openai(server, "--yes", "--price-in", 1, "--price-out", 2))
    assert got.code == 0, got.err
    assert "59 model" in got.out
    assert "questions to ask" in got.err
    assert len(server["prompts"]) == 59
    shown = cli("describe", "data/toy", "--show", 1)
    assert "[shoes]." in shown.out
    again = cli(*openai(server, "--force"))  # nothing left to ask, so nothing to agree to
    assert "59 cache" in again.out
    assert len(server["prompts"]) == 59
    files = b"".join(path.read_bytes() for path in Path("data").rglob("*") if path.is_file())
    told = "".join(one.out + one.err for one in (got, shown, again))
    assert KEY.encode() not in files
    assert KEY not in told


@pytest.mark.slow
def test_a_dry_run_tells_the_cost_and_asks_nothing(
    workshop: Path, cli: Cli, server: dict[str, Any]
) -> None:
    before = snapshot(workshop / "data" / "toy" / "modalities")
    prices = ["--price-in", 100, "--price-out", 200, "--dry-run", "--requests-per-minute", 10]
    got = json.loads(cli(*openai(server, *prices, "--json")).out)
    assert (got["questions"], got["known"], got["tokens_out"]) == (59, 0, 59 * 160)
    assert got["price"] == pytest.approx((got["tokens_in"] * 100 + got["tokens_out"] * 200) / 1e6)
    assert got["minutes"] == pytest.approx(5.9)
    assert got["prompt"].startswith("Below are things")
    shown = cli(*openai(server, *prices)).out
    assert "price, estimated maximum" in shown
    assert "The prompt about user u0" in shown
    prices = ["--price-in", 0.01, "--price-out", 0, "--dry-run"]
    assert "under 0.01" in cli(*openai(server, *prices)).out
    assert server["prompts"] == []
    assert snapshot(workshop / "data" / "toy" / "modalities") == before


def test_it_asks_before_it_costs(
    workshop: Path, cli: Cli, server: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    got = cli(*openai(server))
    assert got.code == 2
    assert "add --yes" in got.err
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    asked: list[str] = []

    def no(text: str, **options: Any) -> None:
        import typer

        asked.append(text)
        raise typer.Abort

    monkeypatch.setattr("typer.confirm", no)
    assert cli(*openai(server)).code == 130
    assert asked == ["Continue?"]
    assert server["prompts"] == []


@pytest.mark.slow
def test_failures_end_it_and_the_same_command_goes_on(
    workshop: Path, cli: Cli, server: dict[str, Any]
) -> None:
    server["refuse"] = {4, 9}
    got = cli(*openai(server, "--yes"))
    assert got.code == 2
    assert "2 failed questions" in got.err
    assert "57 stored answers" in got.err
    assert "preference" not in Dataset.load("data/toy").modalities
    server["refuse"] = {59}
    some = cli(*openai(server, "--yes", "--fallback"))
    assert some.code == 0, some.err
    assert "HTTP 400" in some.err
    assert "57 cache, 1 model, 1 template" in " ".join(some.out.split())
    assert len(server["prompts"]) == 61


@pytest.mark.parametrize(
    ("words", "facts"),
    [
        ("--provider opnai", ("'opnai'", "did you mean 'openai'")),
        ("--provider openai --model m", ("a base URL", "give --base-url")),
        ("--provider openai --base-url http://localhost/v1", ("the name of a model", "--model")),
        ("--provider openai --base-url localhost --model m", ("a base URL with http://",)),
        (
            "--provider openai --base-url http://localhost/v1 --model m --key-variable NO_KEY",
            ("NO_KEY", "no such variable", "--key-variable none"),
        ),
        ("--provider local", ("causal language model", "give --model")),
        ("--provider local --model nowhere", ("nowhere, which is not a folder",)),
        ("--provider file", ("--set path=FILE",)),
        ("--provider file --set path=none.csv", ("none.csv", "no such file")),
        ("--provider history-mean --set modality=txt", ("'txt'", "did you mean 'text'")),
        ("--provider random --set dims=3", ("option of provider random", "did you mean 'dim'")),
        ("--provider template --retries 3", ("option of provider template", "'retries'")),
        ("--provider random --set dim=0", ("dim of provider random",)),
        ("--provider random --set dim=many", ("dim of provider random", "'many'")),
        ("--set n_words=few", ("n_words", "'few'")),
        ("--set n_words=0 --set n_labels=0", ("n_words",)),
        ("--dry-run", ("--dry-run", "leave --dry-run out")),
        ("--embedder minlm", ("'minlm'", "did you mean 'minilm'")),
        ("--name image", ("'image', a modality of the items",)),
        ("--column titel", ("'titel'", "did you mean 'title'")),
        ("--show 3", ("modalign describe",)),
        ("--name a/b --show 3", ("plain name",)),
        ("--price-in 1 --provider openai --base-url http://localhost/v1 --model m "
         "--key-variable none", ("--price-out",)),
    ],
)  # fmt: skip
def test_a_mistake_is_told_in_three_facts_and_changes_nothing(
    words: str, facts: tuple[str, ...], workshop: Path, cli: Cli
) -> None:
    before = snapshot(Path("data/toy"))
    got = cli("describe", "data/toy", *words.split())
    assert got.code == 2, got.out
    told = " ".join(got.err.split())
    assert "Error: expected" in told
    assert "To fix:" in told
    for fact in facts:
        assert fact in told
    after = {k: v for k, v in snapshot(Path("data/toy")).items() if not k.startswith("preferences")}
    assert after == before


def test_the_help_shows_the_defaults_of_the_providers() -> None:
    from modalign.cli import describing
    from modalign.preferences.endpoint import EndpointOptions
    from modalign.preferences.local_model import LocalModelOptions
    from modalign.preferences.prompt import MAX_ITEMS
    from modalign.preferences.provider import PROVIDERS

    fields = EndpointOptions.model_fields | LocalModelOptions.model_fields
    defaults = {name: field.default for name, field in fields.items()} | {"max_items": MAX_ITEMS}
    hints = get_type_hints(describing.ModelOptions, include_extras=True)
    for name, hint in hints.items():
        shown, known = hint.__metadata__[0].show_default, defaults.get(name)
        assert shown == (str(known).removesuffix(".0") if known is not None else False), name
    assert all(f"`{name}`" in describing.EPILOG for name in PROVIDERS)


def test_data_without_texts_is_told(workshop: Path, cli: Cli) -> None:
    pl.read_parquet("data/toy/items.parquet").select("item_id").write_parquet(
        "data/toy/items.parquet"
    )
    got = cli("describe", "data/toy")
    assert got.code == 2
    assert "items with texts" in got.err
    assert cli("describe", "data/toy", "--provider", "history-mean").code == 0


@pytest.mark.slow
def test_texts_and_vectors_of_a_file(workshop: Path, cli: Cli) -> None:
    Path("said.csv").write_text("user_id,text\nu1,red shoe\nu2,blue hat\n")
    got = cli("describe", "data/toy", "--provider", "file", "--set", "path=said.csv")
    assert got.code == 0, got.err
    assert "2 of 60" in got.out
    np.save("rows.npy", np.eye(2))
    Path("ids.txt").write_text("u1\nu2\n")
    got = cli("describe", "data/toy", "--provider", "file", "--set", "path=rows.npy",
              "--set", "ids=ids.txt", "--name", "mine")  # fmt: skip
    assert got.code == 0, got.err
    assert Dataset.load("data/toy").modalities["mine"].features[1].tolist() == [1, 0]
    got = cli("describe", "data/toy", "--name", "words")
    assert "modalign describe data/toy --name words --show 5" in got.err
