"""A small library with texts and times, and a server of chat completions to ask."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from asked_model import KEY, Said, completion, taste

from modalign.data.dataset import Dataset
from modalign.testing.toy import toy_dataset

WORDS = (
    ("red", "shoe", "leather", "running", "summer", "sport"),
    ("old", "book", "paper", "history", "winter", "quiet"),
)


@pytest.fixture
def library() -> Dataset:
    """The toy of 59 active users, with titles, texts and categories; no times; no folder."""
    toy = toy_dataset(seed=1)
    rng = np.random.default_rng(0)
    tastes = toy.item_table["taste"].to_list()
    table = toy.item_table.with_columns(
        title=pl.Series([f"Thing {i} {{x}}" for i in range(toy.n_items)]),
        description=pl.Series([" ".join(rng.permutation(WORDS[t])[:4]) + "." for t in tastes]),
        category=pl.Series([("shoes | sport", "books")[t] for t in tastes]),
        brand=pl.Series([("Fleet", None)[t] for t in tastes]),
    )
    return replace(toy, item_table=table.drop("taste"))


@pytest.fixture
def shelf(library: Dataset, tmp_path: Path) -> Dataset:
    """The same in a folder."""
    return library.save(tmp_path / "shelf")


@dataclass
class Server:
    """A server of chat completions of the test's own.

    `behave(number, prompt)` says what to answer to the request of that number; all requests
    are kept.
    """

    url: str
    behave: Callable[[int, str], Said]
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    @property
    def prompts(self) -> list[str]:
        """Of all requests so far."""
        return [one["messages"][0]["content"] for one in self.requests]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Answers by the taste of the prompt, until it is told otherwise."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("TEST_KEY", KEY)
    lock, gone = threading.Lock(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number = len(told.requests)
                told.requests.append(body)
                told.headers.append(dict(self.headers.items()))
                told.paths.append(self.path)
            said = told.behave(number, body["messages"][0]["content"])
            gone.wait(said.delay)
            try:
                self.send_response(said.status)
                for name, value in said.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(said.body)))
                self.end_headers()
                self.wfile.write(said.body)
            except OSError:
                pass  # the client has given up

        def log_message(self, *args: Any) -> None:
            pass

    class Patient(ThreadingHTTPServer):
        request_queue_size = 64

    made = Patient(("127.0.0.1", 0), Handler)
    told = Server(
        f"http://127.0.0.1:{made.server_port}/v1",
        lambda number, prompt: completion(taste(prompt)),
    )
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield told
    gone.set()
    made.shutdown()
    made.server_close()
    thread.join()


class FakeClock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.time = 0.0
        self.slept: list[float] = []
        self._lock = threading.Lock()

    def now(self) -> float:
        """Seconds."""
        return self.time

    def sleep(self, seconds: float) -> None:
        """Let them pass."""
        with self._lock:
            self.slept.append(seconds)
            self.time += seconds


@pytest.fixture
def clock() -> FakeClock:
    """At zero."""
    return FakeClock()
