"""Time of a full ranking with all metrics, as a ratio over the bare product and top-k.

    python benchmarks/evaluation.py [--data FOLDER] [--split valid] [--threads 1,2]

FOLDER holds train.csv, valid.csv and test.csv (user_id, item_id, both integers). Random tables
of 64 columns score every user against every item. "bare" multiplies a block of users by all
items and takes `torch.topk` of 50, nothing else: no mask, no order of ties, no metric. Ours
masks each user's seen items, breaks ties, and computes all metrics at 5, 10, 20 and 50. The two
alternate, so that other load on the machine affects both.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from _common import AMAZON_BABY, RESULTS, read_rows, write
from torch import Tensor

from modalign.core import seeds
from modalign.core.interfaces import Config, Recommender
from modalign.data.dataset import Dataset
from modalign.data.interactions import Interactions
from modalign.data.vocabulary import Vocabulary
from modalign.evaluate.protocol import KS, Evaluator
from modalign.experiments.run_folder import environment

BLOCK = 1024
TARGET = 3.0


class Tables(Recommender):
    """Two random tables."""

    def __init__(self, dataset: Dataset, columns: int) -> None:
        super().__init__(Config(), dataset.view())
        rng = seeds.torch_generator(0, "benchmark", "tables")
        self.user_table = torch.nn.Parameter(torch.randn(self.n_users, columns, generator=rng))
        self.item_table = torch.nn.Parameter(torch.randn(self.n_items, columns, generator=rng))

    def tables(self) -> tuple[Tensor, Tensor]:
        return self.user_table, self.item_table


def read(folder: Path) -> Dataset:
    """The data set of a folder, with ids as rows."""
    names = ("train", "valid", "test")
    parts: dict[str, Any] = {name: Interactions(*read_rows(folder, name)) for name in names}
    n_users, n_items = (
        max(int(getattr(part, side).max()) for part in parts.values()) + 1
        for side in ("users", "items")
    )
    users, items = Vocabulary(range(n_users), "user"), Vocabulary(range(n_items), "item")
    return Dataset(folder.resolve().name, users, items, **parts)


def bare(model: Tables, users: Tensor, k: int) -> None:
    """The minimum that any ranking of all items computes."""
    with torch.inference_mode():
        for block in users.split(BLOCK):
            (model.user_table[block] @ model.item_table.T).topk(k)


def in_turns(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, dict[str, float]]:
    """Best and median seconds of each run; the runs alternate."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            if turn:  # the first warms up
                taken[name].append(time.perf_counter() - began)
    return {
        name: {"best": min(times), "median": statistics.median(times)}
        for name, times in taken.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=AMAZON_BABY)
    parser.add_argument("--split", choices=("valid", "test"), default="valid")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--columns", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS / "evaluation.json")
    args = parser.parse_args()
    dataset = read(args.data)
    model = Tables(dataset, args.columns)
    evaluator = Evaluator(dataset, args.split, block=BLOCK)
    users = torch.from_numpy(evaluator.users)
    runs = {
        "bare": lambda: bare(model, users, max(KS)),
        "ours": lambda: evaluator.run(model),
    }
    results = {}
    print(f"{len(users)} users x {dataset.n_items} items, seconds, best / median of {args.repeats}")
    print(f"{'threads':>7} {'bare':>15} {'ours':>15} {'ours / bare':>13}  (at most {TARGET:g})")
    for threads in args.threads.split(","):
        torch.set_num_threads(int(threads))
        times = in_turns(runs, args.repeats)
        ratio = {key: times["ours"][key] / times["bare"][key] for key in ("best", "median")}
        results[threads] = {**times, "ratio": ratio}
        bare_, ours = (f"{t['best']:.3f} / {t['median']:.3f}" for t in times.values())
        shown = f"{ratio['best']:.2f} / {ratio['median']:.2f}"
        print(f"{threads:>7} {bare_:>15} {ours:>15} {shown:>13}")
    report = {
        "what": "ranking of all items, top 50, all metrics at 5, 10, 20, 50 (ours), and the bare "
        "product with torch.topk; seconds by number of threads; ratio: ours / bare",
        "data": dataset.name,
        "split": args.split,
        "n_users": len(users),
        "n_items": dataset.n_items,
        "columns": args.columns,
        "block": BLOCK,
        "repeats": args.repeats,
        "environment": {k: v for k, v in environment().items() if k != "threads"},
        "load_average": os.getloadavg()[0],
        "by_threads": results,
    }
    write(args.out, report)


if __name__ == "__main__":
    main()
