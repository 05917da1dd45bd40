"""Time of one product with the amazon-baby graph by different implementations, against COO.

    python benchmarks/propagation.py [--data FOLDER] [--threads 1] [--columns 64]

FOLDER holds train.csv (user_id, item_id). "forward + backward" is one layer with a sum readout
and its gradient; "at a batch" takes result and gradient at the rows of 2,048 triples only.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from _common import AMAZON_BABY, RESULTS, hardware, read_rows, write
from torch import Tensor

from modalign.core.sparse import csr_tensor
from modalign.graph.bipartite import BipartiteGraph

BATCH = 2048


def milliseconds(run: Callable[[], object], repeats: int) -> dict[str, float]:
    """Median and best of several runs."""
    for _ in range(3):
        run()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        times.append((time.perf_counter() - began) * 1e3)
    return {"median": statistics.median(times), "best": min(times)}


def with_backward(forward: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], object]:
    """Forward and the gradient of a fixed weighting of its result."""
    leaf = x.clone().requires_grad_()
    weight = torch.randn_like(forward(x))

    def run() -> None:
        leaf.grad = None
        forward(leaf).backward(weight)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=AMAZON_BABY)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--columns", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--out", type=Path, default=RESULTS / "propagation.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.filterwarnings("ignore", category=UserWarning)
    torch.manual_seed(0)
    users, items = torch.from_numpy(read_rows(args.data))
    n_users, n_items = int(users.max()) + 1, int(items.max()) + 1
    graph = BipartiteGraph(users, items, n_users, n_items)
    x = torch.randn(n_users + n_items, args.columns)

    matrix = graph.scipy()
    entries = matrix.tocoo()
    coo = torch.sparse_coo_tensor(
        np.stack(entries.coords).astype(np.int64), entries.data, graph.shape
    ).coalesce()
    csr64 = csr_tensor(graph.indptr.long(), graph.indices.long(), graph.values, graph.shape)
    csr32 = csr_tensor(graph.indptr, graph.indices, graph.values, graph.shape)
    picked = torch.randint(len(users), (BATCH,))
    seen = items[picked]
    unseen = torch.randint(n_items, (BATCH,))
    rows = torch.cat([users[picked], seen + n_users, unseen + n_users])

    products: dict[str, Callable[[Tensor], object]] = {
        "torch COO": lambda x: torch.sparse.mm(coo, x),
        "torch CSR, 64-bit": lambda x: csr64 @ x,
        "torch CSR, 32-bit": lambda x: csr32 @ x,
        "scipy CSR": lambda x: matrix @ x.numpy(),
        "modalign": lambda x: graph.matmul(x),
    }
    steps: dict[str, Callable[[Tensor], Tensor]] = {
        "torch COO": lambda x: x + torch.sparse.mm(coo, x),
        "torch CSR, 64-bit": lambda x: x + csr64 @ x,
        "modalign": lambda x: graph.propagate(x, 1, "sum"),
        "torch COO, at a batch": lambda x: (x + torch.sparse.mm(coo, x))[rows],
        "modalign, at a batch": lambda x: graph.propagate(x, 1, "sum", rows),
    }
    expected = products["torch COO"](x)
    for name, product in products.items():
        torch.testing.assert_close(torch.as_tensor(product(x)), expected, msg=name)
    tables: dict[str, dict[str, dict[str, float]]] = {"forward": {}, "forward + backward": {}}
    with torch.no_grad():
        for name, product in products.items():
            tables["forward"][name] = milliseconds(lambda p=product: p(x), args.repeats)
    for name, step in steps.items():
        tables["forward + backward"][name] = milliseconds(with_backward(step, x), args.repeats)
    for what, table in tables.items():
        print(f"\n{what:26} {'ms':>8} {'best':>8} {'COO / it':>9}")
        for name, times in table.items():
            base = "torch COO, at a batch" if name.endswith("batch") else "torch COO"
            times["ratio"] = table[base]["median"] / times["median"]
            print(f"{name:26} {times['median']:8.2f} {times['best']:8.2f} {times['ratio']:9.1f}")
    report = {
        "what": "one product with the amazon-baby graph, milliseconds; ratio: COO / it",
        "nodes": graph.shape[0],
        "non_zeros": len(graph.indices),
        "columns": args.columns,
        "hardware": hardware(args.threads),
        **tables,
    }
    write(args.out, report)


if __name__ == "__main__":
    main()
