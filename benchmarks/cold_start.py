"""Recall of items without interactions: the content adapter and its alternatives.

    python benchmarks/cold_start.py --data data/shop --seeds 1,2,3 --out cold_start-shop.json

All interactions of the data are split again by cold items (20% of the items do not occur in
training, half of them for validation, half for test). Recall@20 of the test items is measured among
all items and among cold items only, for

- random scores, and popularity in training (zero for a cold item);
- CM3's own ranking, which builds every item from its content: by default and as its cold-start
  variant;
- LightGCN, BPR and CM3 with cold items' vectors from the adapter of `modalign export`, as selected
  at export, and without the transport term (the best ridge regression alone).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import Tensor, nn

from modalign.core.interfaces import Recommender
from modalign.data.dataset import Dataset
from modalign.data.interactions import Interactions
from modalign.data.splits import split
from modalign.evaluate.protocol import Evaluator
from modalign.experiments.fit import fit
from modalign.export.content import Choice, fit_map, read_content, train_adapter

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "bpr": ("bpr", {}),
    "lightgcn": ("lightgcn", {}),
    "cm3": ("cm3", {}),
    "cm3 cold-start": ("cm3", {"uniformity_items": "catalogue"}),
}


class Tables(Recommender):
    """Fixed vectors."""

    def __init__(self, users: np.ndarray, items: np.ndarray) -> None:
        nn.Module.__init__(self)
        self.vectors = torch.from_numpy(users), torch.from_numpy(items)

    def tables(self) -> tuple[Tensor, Tensor]:
        return self.vectors


def resplit(data: Dataset, seed: int) -> Dataset:
    users = np.concatenate([data.train.users, data.valid.users, data.test.users])
    items = np.concatenate([data.train.items, data.valid.items, data.test.items])
    label = split("cold-items", users, items, None, seed)
    parts = [Interactions(users[label == part], items[label == part]) for part in range(3)]
    return replace(data, train=parts[0], valid=parts[1], test=parts[2], folder=None)


def measured(data: Dataset, model: Recommender) -> dict[str, float]:
    found = {}
    for candidates in ("all", "cold"):
        evaluator = Evaluator(data, "test", "strict", (20,), ("recall",), candidates=candidates)
        found[f"recall@20, {candidates}"] = evaluator.run(model).metrics["recall@20"]
    return found


def with_adapter(data: Dataset, model: Recommender, seed: int) -> dict[str, Any]:
    with torch.inference_mode():
        users, items = (table.numpy().copy() for table in model.eval().tables())
    history = data.train.csr(data.n_users, data.n_items)
    warm = np.unique(history.indices)
    cold = np.setdiff1d(np.arange(data.n_items), warm)
    content = read_content(data.view().modalities, warm, seed)
    report = train_adapter(content, users, items, history, seed).report
    tried = report["tried"]
    ridges = [one for one in tried if not one["transport_weight"] and not one["hidden"]]
    choices = {"adapter": report, "ridge alone": max(ridges, key=lambda one: one["recall@20"])}
    found: dict[str, Any] = {}
    for name, one in choices.items():
        choice = Choice(one["reg"], one["transport_weight"], one["hidden"])
        placed = items.copy()
        placed[cold] = fit_map(content.x[warm], items[warm], choice, seed)(content.x[cold])
        found[name] = {**measured(data, Tables(users, placed)), **choice.described()}
    return found


def one_seed(data: Dataset, seed: int, names: list[str], epochs: int | None) -> dict[str, Any]:
    data = resplit(data, seed)
    rng = np.random.default_rng(seed)
    counts = np.bincount(data.train.items, minlength=data.n_items).astype(np.float32)
    ones = np.ones((data.n_users, 1), np.float32)
    noise = [rng.normal(size=(n, 8)).astype(np.float32) for n in (data.n_users, data.n_items)]
    found: dict[str, Any] = {
        "random": measured(data, Tables(*noise)),
        "popularity": measured(data, Tables(ones, counts[:, None])),
    }
    for name in names:
        model, options = MODELS[name]
        begin = time.perf_counter()
        more = {} if epochs is None else {"epochs": epochs}
        trained = fit(data, model, seed=seed, **options, **more).model
        if model == "cm3":
            found[f"{name}: its own"] = measured(data, trained)
        for way, figures in with_adapter(data, trained, seed).items():
            found[f"{name}: {way}"] = figures
        print(seed, name, f"{time.perf_counter() - begin:.0f} s", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--epochs", type=int, help="maximum number of epochs of each training")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    data = Dataset.load(options.data)
    seeds = [int(one) for one in options.seeds.split(",")]
    runs = {seed: one_seed(data, seed, options.models.split(","), options.epochs) for seed in seeds}
    keys = ("recall@20, all", "recall@20, cold")
    means = {
        name: {key: statistics.mean(run[name][key] for run in runs.values()) for key in keys}
        for name in runs[seeds[0]]
    }
    text = json.dumps(
        {"data": data.name, "seeds": seeds, "epochs": options.epochs, "means": means, "runs": runs},
        indent=2,
    )
    print(text)
    for name, figures in means.items():
        print(f"{name:32}", *(f"{figures[key]:.4f}" for key in keys))
    if options.out:
        options.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
