"""The ranker on random clustered vectors: many users at once, one at a time, a million by HNSW.

    python benchmarks/serve_ranker.py --out benchmarks/results/serve_ranker.json

Vectors: `n / 100` centres drawn from a normal distribution, every item a centre plus 0.5 times a
normal draw, all times a log-normal length (deviation 0.2); users are drawn in the
same way around the items' centres. Users have seen 20 random items each. The bare product is
`users @ items.T` into memory that is there already, followed by numpy's `argpartition` and a sort
of what it finds; one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from modalign_serve.artifact.artifact import Artifact, Csr
from modalign_serve.artifact.manifest import Manifest
from modalign_serve.artifact.strings import Ids
from modalign_serve.artifact.write import write_artifact
from modalign_serve.ranker.index import Hnsw
from modalign_serve.ranker.ranker import Ranker
from modalign_serve.ranker.topk import best_of_rows

K, WIDTH, SEEN = 20, 64, 20

START = """
import json, sys, time
begin = time.perf_counter()
from modalign_serve.ranker.ranker import Ranker
ready = time.perf_counter()
ranker = Ranker.open(sys.argv[1])
opened = time.perf_counter()
ranker.recommend(["u1"], 20)
first = time.perf_counter()
import resource
print(json.dumps({
    "import_s": ready - begin, "open_s": opened - ready, "first_call_s": first - opened,
    "torch": "torch" in sys.modules,
    "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
}))
"""


def vectors(n: int, centres: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    found = centres[rng.integers(len(centres), size=n)]
    found = found + 0.5 * rng.standard_normal(found.shape, np.float32)
    return (found * rng.lognormal(0, 0.2, (n, 1))).astype(np.float32)


def artifact(n_users: int, n_items: int, seed: int = 1) -> Artifact:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((max(1, n_items // 100), WIDTH), np.float32)
    seen = np.sort(rng.integers(n_items, size=(n_users, SEEN)), axis=1)
    return Artifact(
        Manifest("factors", "random", n_users, n_items, WIDTH),
        Ids.pack([f"u{row}" for row in range(n_users)], "user"),
        Ids.pack([f"i{row}" for row in range(n_items)], "item"),
        Csr(np.arange(0, SEEN * n_users + 1, SEEN), seen.ravel().astype(np.int32)),
        np.ones(n_items, np.int64),
        vectors(n_users, centres, rng),
        vectors(n_items, centres, rng),
    )


def milliseconds(call: Callable[[], object], repeats: int) -> list[float]:
    call()
    found = []
    for _ in range(repeats):
        begin = time.perf_counter()
        call()
        found.append(1e3 * (time.perf_counter() - begin))
    return found


def small(repeats: int) -> dict[str, float]:
    made = artifact(5_000, 20_000)
    ranker = Ranker(made)
    users = [f"u{row}" for row in range(1_000)]
    rows = np.arange(1_000)
    room = np.empty((1_000, 20_000), np.float32)
    every = np.arange(1_000)[:, None]

    def product() -> None:
        np.matmul(made.users[rows], made.items.T, out=room)

    def bare() -> None:
        product()
        best = np.argpartition(room, room.shape[1] - K, axis=1)[:, -K:]
        np.argsort(-room[every, best], axis=1)

    alone = iter(np.random.default_rng(2).integers(5_000, size=100_000).tolist())
    ours = milliseconds(lambda: ranker.recommend(users, K), repeats)
    theirs = milliseconds(bare, repeats)
    only = milliseconds(product, repeats)
    single = milliseconds(lambda: ranker.recommend([f"u{next(alone)}"], K), 2_000)
    vector = made.users[0]
    matvec = milliseconds(lambda: made.items @ vector, 500)
    return {
        "batch_ms": statistics.median(ours),
        "bare_product_and_top_k_ms": statistics.median(theirs),
        "bare_product_ms": statistics.median(only),
        "batch_over_bare": statistics.median(ours) / statistics.median(theirs),
        "batch_over_product_alone": statistics.median(ours) / statistics.median(only),
        "single_p50_ms": statistics.median(single),
        "single_p99_ms": float(np.percentile(single, 99)),
        "single_product_alone_ms": statistics.median(matvec),
    }


def large(n_items: int, kept: Path | None) -> dict[str, float]:
    made = artifact(20_000, n_items, seed=3)
    with tempfile.TemporaryDirectory() as scratch:
        folder = kept if kept is not None else Path(scratch) / "artifact"
        found: dict[str, float] = {"items": n_items}
        if not (folder / "manifest.json").is_file():
            begin = time.perf_counter()
            graph = Hnsw.build(made.items)
            found["build_s"] = time.perf_counter() - begin
            path = Path(scratch) / "index.faiss"
            graph.write(path)
            # Tuned on other users than those who are measured, as at export.
            some = made.users[-500:]
            parts = [some[a : a + 50] @ made.items.T for a in range(0, 500, 50)]
            exact_rows = np.concatenate([best_of_rows(part, K)[0] for part in parts])
            report = {"kind": "hnsw", "recall@20": graph.tune(some, exact_rows)}
            report["search"] = graph.search
            written = replace(made, manifest=replace(made.manifest, index=report))
            write_artifact(folder, written, {"index.faiss": path})
        starts = [
            json.loads(
                subprocess.run(
                    [sys.executable, "-c", START, str(folder)], check=True, capture_output=True
                ).stdout
            )
            for _ in range(3)
        ]
        found |= {key: statistics.median(one[key] for one in starts) for key in starts[0]}
        found["start_s"] = statistics.median(one["import_s"] + one["open_s"] for one in starts)
        ranker, exact = Ranker.open(folder), Ranker.open(folder, search="exact")
        asked = [f"u{row}" for row in range(500)]
        calls = iter(asked * 3)
        times = milliseconds(lambda: ranker.recommend([next(calls)], K), 1_000)
        whole = iter(asked)
        slow = milliseconds(lambda: exact.recommend([next(whole)], K), 20)
        near = ranker.recommend(asked, K).rows
        true = np.concatenate(
            [exact.recommend(asked[a : a + 50], K).rows for a in range(0, 500, 50)]
        )
        shared = (near[:, :, None] == true[:, None, :]).any(axis=2).mean()
        return found | {
            "search": ranker.artifact.manifest.index["search"],
            "hnsw_p50_ms": statistics.median(times),
            "hnsw_p99_ms": float(np.percentile(times, 99)),
            "exact_p50_ms": statistics.median(slow),
            "recall@20": float(shared),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--items", type=int, default=1_000_000, help="0 leaves the large part out")
    parser.add_argument("--keep", type=Path, help="keep (or use) the large artifact here")
    options = parser.parse_args()
    found: dict[str, object] = {
        "platform": platform.machine(),
        "cores": os.cpu_count(),
        "threads": os.environ["OMP_NUM_THREADS"],
        "numpy": np.__version__,
        "20000 items, 1000 users": small(options.repeats),
    }
    if options.items:
        found["hnsw"] = large(options.items, options.keep)
    text = json.dumps(found, indent=2)
    print(text)
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
