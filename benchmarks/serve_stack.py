"""The served student against a bare loop, and against the server of an older commit.

    git worktree add ../before COMMIT
    python benchmarks/serve_stack.py [--before ../before] [--seconds 5] [--rounds 3]

A random artifact of 20,000 items, 64 dimensions and 10,000 users with 30 seen items each is asked
for lists of 20 items by 8 connections from a process of its own. Both servers run alternately on
the same machine. Measured: requests a second, CPU per request, p50, p99, resident memory; the
medians of the rounds are compared. The bare loop decodes a body, multiplies, takes the best and
encodes the answer, in one process.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import msgspec
import numpy as np
from serve_http import ITEMS, LIST, USERS, WIDTH, K, bodies, made_up

from modalign_serve.artifact.write import write_artifact
from modalign_serve.service import schemas

ROOT = Path(__file__).resolve().parents[1]
CONNECTIONS = 8

SERVER = """
import json, subprocess, sys, time
from modalign_serve.command import bench

load = json.load(sys.stdin)

def cpu(pid):
    fields = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / load["ticks"]

with bench.running(["shop=" + load.pop("shop")]) as live:
    seconds, ticks = load.pop("seconds"), load.pop("ticks")
    load = {"ticks": ticks, **load}
    sent = {k: v for k, v in load.items() if k != "ticks"} | {"port": live.port}
    bench._loaded({**sent, "seconds": 1.0})
    before = cpu(live.pid)
    found = bench._loaded({**sent, "seconds": seconds})
    found["cpu_ms_per_request"] = 1000 * (cpu(live.pid) - before) / found["requests"]
    found["memory_mb"] = bench.resident(live.pid) / 1e6
print(json.dumps(found))
"""


def served(tree: Path, shop: Path, seconds: float) -> dict[str, Any]:
    """Measurements of the server of a source tree."""
    load = {
        "shop": str(shop),
        "path": LIST,
        "bodies": bodies(),
        "connections": CONNECTIONS,
        "seconds": seconds,
        "ticks": os.sysconf("SC_CLK_TCK"),
    }
    ended = subprocess.run(
        [sys.executable, "-c", SERVER],
        input=json.dumps(load).encode(),
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONPATH": f"{tree / 'src'}:{tree / 'serve' / 'src'}"},
    )
    found: dict[str, Any] = json.loads(ended.stdout)
    assert found["failed"] == 0
    return found


def bare(seconds: float) -> dict[str, float]:
    """A loop over prepared bodies in this process."""
    artifact = made_up(1)
    assert artifact.users is not None
    assert artifact.items is not None
    columns, users = np.ascontiguousarray(artifact.items.T), artifact.users
    encode = msgspec.json.Encoder().encode
    sent = [one.encode() for one in bodies()]
    times: list[float] = []
    start, busy = time.perf_counter(), time.process_time()
    while time.perf_counter() - start < seconds:
        begun = time.perf_counter()
        asked = schemas.RECOMMEND.decode(sent[len(times) % USERS])
        row = artifact.user_ids.row(str(asked.user_id))
        scores = users[row] @ columns
        scores[artifact.seen.row(row)] = -np.inf
        top = np.argpartition(scores, -K)[-K:]
        top = top[np.argsort(-scores[top])]
        listed = zip(artifact.item_ids.take(top), scores[top].tolist(), strict=True)
        encode([schemas.Scored(item, score) for item, score in listed])
        times.append(time.perf_counter() - begun)
    busy = time.process_time() - busy
    times.sort()
    return {
        "per_second": len(times) / seconds,
        "cpu_ms_per_request": 1000 * busy / len(times),
        "p50_ms": 1000 * times[len(times) // 2],
        "p99_ms": 1000 * times[int(0.99 * len(times))],
    }


def medians(rounds: list[dict[str, Any]]) -> dict[str, float]:
    """The median of every measurement."""
    return {name: statistics.median(one[name] for one in rounds) for name in rounds[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    trees = {"now": ROOT}
    if asked.before is not None:
        trees["before"] = asked.before
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in trees}
    with tempfile.TemporaryDirectory() as folder:
        shop = write_artifact(Path(folder) / "shop", made_up(1), {})
        for _ in range(asked.rounds):
            for name, tree in trees.items():
                found[name].append(served(tree, shop, asked.seconds))
    result: dict[str, Any] = {
        "items": ITEMS,
        "width": WIDTH,
        "users": USERS,
        "k": K,
        "connections": CONNECTIONS,
        "rounds": asked.rounds,
        "seconds": asked.seconds,
        "bare": bare(asked.seconds),
        **{name: medians(rounds) for name, rounds in found.items()},
    }
    if "before" in result:
        result["now / before"] = {
            name: result["now"][name] / result["before"][name]
            for name in ("per_second", "cpu_ms_per_request", "p50_ms", "p99_ms", "memory_mb")
        }
    text = json.dumps(result, indent=2) + "\n"
    print(text, end="")
    (ROOT / "benchmarks" / "results" / "serve_stack.json").write_text(text)


if __name__ == "__main__":
    main()
