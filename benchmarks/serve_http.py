"""The service under load from another process on this machine.

    python benchmarks/serve_http.py [--seconds 10] [--kills 50] [--only lists,swap,...]

A random artifact of 20,000 items, 64 dimensions and 10,000 users with 30 seen items each is
served by `modalign serve` in a process of its own; callers are processes of their own too.

lists       one user per call, k 20, seen items hidden: requests a second, p50, p99, memory
bare        the same number of products and choices of the best in one process, no HTTP at all
feedback    events a second in batches of 100, each answered when it is on disk
swap        lists while the artifact is exchanged again and again: failures, p99 against before
kills       `kill -9` in the midst of feedback, then: is everything acknowledged there?
start       seconds from starting the process to its first answer, 20,000 and a million items
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import signal
import sqlite3
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from modalign_serve.artifact.artifact import Artifact, Csr
from modalign_serve.artifact.sample import small_artifact
from modalign_serve.artifact.strings import Ids
from modalign_serve.artifact.write import write_artifact
from modalign_serve.command import bench
from modalign_serve.command.bench import Running, running
from modalign_serve.ranker.ranker import Ranker
from modalign_serve.service.keys import new_key

ROOT = Path(__file__).resolve().parents[1]
USERS, ITEMS, WIDTH, SEEN, K = 10_000, 20_000, 64, 30, 20
LIST = "/v1/models/shop/recommend"


def made_up(seed: int) -> Artifact:
    """Random vectors; the items a user has seen lie at equal distances from a random first one."""
    few = small_artifact(2, ITEMS, WIDTH, seed=seed)
    rng = np.random.default_rng(seed)
    apart = np.arange(SEEN) * (ITEMS // SEEN)
    items = np.sort((rng.integers(0, ITEMS, USERS)[:, None] + apart) % ITEMS, axis=1)
    return replace(
        few,
        manifest=replace(few.manifest, n_users=USERS),
        user_ids=Ids.pack([f"u{row}" for row in range(USERS)], "user"),
        users=rng.normal(size=(USERS, WIDTH)).astype(np.float32),
        seen=Csr(np.arange(USERS + 1) * SEEN, items.ravel().astype(np.int32)),
        counts=np.bincount(items.ravel(), minlength=ITEMS).astype(np.int64),
    )


def bodies() -> list[str]:
    rng = np.random.default_rng(1)
    return [json.dumps({"user_id": f"u{row}", "k": K}) for row in rng.permutation(USERS)]


def lists(shop: Path, seconds: float) -> dict[str, Any]:
    """The bar: 1,200 requests a second, p99 under 20 ms, under 300 MB."""
    found = {}
    for connections in (1, 4, 8, 16):
        measured = bench.measure(shop, USERS, seconds, connections, K)
        found[f"{connections} connections"] = asdict(measured)
    return found


def bare(shop: Path, seconds: float) -> dict[str, float]:
    """What the ranker alone can do, one user at a time and eight at a time."""
    ranker = Ranker.open(shop)
    found = {}
    for many in (1, 8):
        count, until = 0, time.perf_counter() + seconds / 4
        while time.perf_counter() < until:
            users = [f"u{(count + one) % USERS}" for one in range(many)]
            ranker.recommend(users, K)
            count += many
        found[f"{many} at a time, users a second"] = count / (seconds / 4)
    return found


def feedback(shop: Path, seconds: float) -> dict[str, float]:
    """The bar: 1,000 events a second in batches of 100, all durable."""
    batches = [
        json.dumps(
            [
                {
                    "event_id": f"{batch}-{one}",
                    "user_id": f"u{(7 * batch + one) % USERS}",
                    "item_id": f"i{(13 * batch + 5 * one) % ITEMS}",
                    "kind": "click",
                }
                for one in range(100)
            ]
        )
        for batch in range(20_000)
    ]
    found: dict[str, float] = {}
    for connections in (1, 8):
        with running([f"shop={shop}"]) as live:
            told = asyncio.run(
                bench.call(live.port, "/v1/feedback", batches, connections, seconds / 2)
            )
        found[f"{connections} connections, events a second"] = 100 * told["per_second"]
        found[f"{connections} connections, p99 ms"] = told["p99_ms"]
        found[f"{connections} connections, failed"] = told["failed"]
    return found


def _swaps(live: Running, word: str, over: threading.Event, done: list[float]) -> None:
    names = ["shop-2", "shop"]
    while not over.is_set():
        body = json.dumps({"model": "shop", "artifact": names[len(done) % 2]}).encode()
        request = urllib.request.Request(live.url + "/v1/admin/swap", body, method="POST")
        request.add_header("Authorization", f"Bearer {word}")
        with urllib.request.urlopen(request, timeout=60) as answer:
            done.append(json.load(answer)["seconds"])
        over.wait(0.5)


def _calls(port: int, word: str, seconds: float, pipe: Any) -> None:
    pipe.send(asyncio.run(bench.call(port, LIST, bodies(), 8, seconds, f"Bearer {word}")))


def _load(live: Running, word: str, seconds: float) -> dict[str, Any]:
    here, there = multiprocessing.Pipe()
    caller = multiprocessing.Process(target=_calls, args=(live.port, word, seconds, there))
    caller.start()
    found: dict[str, Any] = here.recv()
    caller.join()
    return found


def swap(shop: Path, seconds: float) -> dict[str, Any]:
    """The bar: no failed request, p99 during swaps under three times the usual."""
    with tempfile.TemporaryDirectory() as folder:
        word = new_key(Path(folder) / "keys", "bench", "admin")
        with running([f"shop={shop}"], "--keys", str(Path(folder) / "keys")) as live:
            _load(live, word, 1.0)
            usual = _load(live, word, seconds / 2)
            over, done = threading.Event(), list[float]()
            swapper = threading.Thread(target=_swaps, args=(live, word, over, done))
            swapper.start()
            during = _load(live, word, seconds / 2)
            over.set()
            swapper.join()
    return {
        "swaps": len(done),
        "seconds of a swap": statistics.median(done),
        "failed": during["failed"],
        "usual": usual,
        "during": during,
        "p99 ratio": during["p99_ms"] / usual["p99_ms"],
    }


def _feed(port: int, turn: int, path: str) -> None:
    """Send events on eight connections and write down what was acknowledged."""

    async def one(worker: int, file: Any) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for batch in range(10**6):
            ids = [f"{turn}-{worker}-{batch}-{k}" for k in range(10)]
            events = [
                {"event_id": i, "user_id": f"u{k}", "item_id": f"i{k}", "kind": "click"}
                for k, i in enumerate(ids)
            ]
            body = json.dumps(events).encode()
            head = f"POST /v1/feedback HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = int(answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            if answer.startswith(b"HTTP/1.1 200"):
                file.write("\n".join(ids) + "\n")
                file.flush()

    async def all_of_them(file: Any) -> None:
        await asyncio.gather(*(one(n, file) for n in range(8)), return_exceptions=True)

    with Path(path).open("w") as file:
        asyncio.run(all_of_them(file))


def kills(shop: Path, times: int) -> dict[str, int]:
    """The bar: nothing acknowledged is lost."""
    rng = np.random.default_rng(1)
    acknowledged: set[str] = set()
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "feedback.sqlite"
        for turn in range(times):
            acked = Path(folder) / f"acknowledged-{turn}"
            with running([f"shop={shop}"], "--feedback", str(store)) as live:
                feeder = multiprocessing.Process(target=_feed, args=(live.port, turn, str(acked)))
                feeder.start()
                while not acked.exists() or not acked.stat().st_size:
                    time.sleep(0.005)
                time.sleep(float(rng.uniform(0.05, 0.5)))
                os.kill(live.pid, signal.SIGKILL)
                live.process.wait()
                feeder.join()
            acknowledged.update(acked.read_text().split())
        with sqlite3.connect(store) as db:
            kept = {row[0] for row in db.execute("SELECT event_id FROM events")}
    lost = len(acknowledged - kept)
    return {"kills": times, "acknowledged": len(acknowledged), "kept": len(kept), "lost": lost}


def start(shop: Path, folder: Path) -> dict[str, float]:
    """The bar: under two seconds for a million items, mapped into memory."""
    large = folder / "large"
    # Few users: the made-up artifact draws a number for each of them and each item.
    artifact = small_artifact(20, 1_000_000, WIDTH, mean_seen=0)
    write_artifact(large, artifact)
    del artifact
    found = {}
    for name, path in (("20,000 items", shop), ("1,000,000 items", large)):
        taken = []
        for _ in range(3):
            with running([f"shop={path}"]) as live:
                taken.append(live.start_seconds)
                memory = bench.resident(live.pid) / 1e6
        found[f"{name}, seconds"] = statistics.median(taken)
        found[f"{name}, MB"] = memory
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--only", default="bare,lists,feedback,swap,kills,start")
    args = parser.parse_args()
    out = ROOT / "benchmarks" / "results" / "serve_http.json"
    results = json.loads(out.read_text()) if out.exists() else {}
    results["machine"] = {"processors": os.cpu_count(), "python": sys.version.split()[0]}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for seed, one in enumerate(("shop", "shop-2"), 1):
            write_artifact(folder / one, made_up(seed))
        shop = folder / "shop"
        runs: dict[str, Callable[[], Any]] = {
            "bare": lambda: bare(shop, args.seconds),
            "lists": lambda: lists(shop, args.seconds),
            "feedback": lambda: feedback(shop, args.seconds),
            "swap": lambda: swap(shop, args.seconds),
            "kills": lambda: kills(shop, args.kills),
            "start": lambda: start(shop, folder),
        }
        for part in args.only.split(","):
            results[part] = runs[part]()
            print(part, json.dumps(results[part], indent=2))
    out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
