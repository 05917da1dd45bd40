"""How often the edges of the graphs that MMSSL learns are held-out interactions.

    python benchmarks/mmssl_graphs.py RUN...

For finished runs of MMSSL (folders with a `results.json`): the share of a modality's edges (k items
that the user does not have in training) that are held-out interactions of validation or test, mean
over users with held-out interactions. For comparison, the same share for k items by the final
vectors, by popularity, and at random. Means over the runs.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from modalign.core.interfaces import chosen_modalities
from modalign.data.dataset import Dataset
from modalign.experiments.fit import load_model
from modalign.graph.preference import best_items
from modalign.graph.propagate import CSR
from modalign.models.mmssl.model import MMSSL


def held_out(data: Dataset) -> Tensor:
    """Mask of the interactions of validation or test, (n_users, n_items)."""
    cells = torch.zeros(data.n_users, data.n_items, dtype=torch.bool)
    for part in (data.valid, data.test):
        cells[torch.from_numpy(part.users), torch.from_numpy(part.items)] = True
    return cells


def share_right(chosen: Tensor, held: Tensor) -> float:
    """Mean share of the users' chosen items that are held out; -1 marks no item.

    Over users who have held-out and chosen items.
    """
    there = chosen >= 0
    right = held.gather(1, chosen.clamp(min=0).long()) & there
    counted = held.any(1) & there.any(1)
    return float((right.sum(1) / there.sum(1).clamp(min=1))[counted].mean())


def by_popularity(popularity: np.ndarray, k: int, seen: CSR, n_users: int) -> Tensor:
    """The k most popular items that each user does not have.

    Args:
        popularity: training interactions of each item.
        k: number of items.
        seen: training items of each user.
        n_users: number of users.
    """
    return best_items(
        torch.ones(n_users, 1), torch.from_numpy(popularity).float()[:, None], k, seen
    )


def measured(folder: Path) -> dict[str, float]:
    """The shares of one run, by source of the items."""
    fitted = load_model(folder)
    model, data = fitted.model, fitted.dataset
    if not isinstance(model, MMSSL) or model.config.graph == "observed":
        raise SystemExit(f"expected a run of mmssl with learnt graphs, got {folder}")
    held, seen = held_out(data), model.observed.seen
    graphs, k = model.modality_graphs.graphs, model.config.n_neighbours(data.n_items)
    names = chosen_modalities(model.config, data.modalities)
    found = {
        name: share_right(graph.neighbours, held) for name, graph in zip(names, graphs, strict=True)
    }
    with torch.no_grad():
        found["final vectors"] = share_right(best_items(*model.tables(), k, seen), held)
    popularity = np.bincount(data.train.items, minlength=data.n_items)
    found["popularity"] = share_right(by_popularity(popularity, k, seen, data.n_users), held)
    of_users = held.any(1)
    free = data.n_items - (seen.indptr[1:] - seen.indptr[:-1])
    found["random"] = float((held.sum(1) / free)[of_users].mean())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", type=Path, nargs="+")
    rows = [measured(folder) for folder in parser.parse_args().runs]
    for name in rows[0]:
        values = [row[name] for row in rows]
        print(f"{name:15s} {statistics.mean(values):7.2%}  {min(values):.2%} to {max(values):.2%}")


if __name__ == "__main__":
    main()
