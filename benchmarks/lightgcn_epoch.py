"""A LightGCN epoch on amazon-baby: by our trainer, and by a straightforward loop.

    python benchmarks/lightgcn_epoch.py [--data FOLDER] [--threads 1] [--layers 1]

The straightforward loop is what most code does: a COO matrix, layers stacked and averaged,
negatives drawn one by one in Python, tables looked up by index, plain Adam. A check first ensures
that both compute the same loss on the same batch. Epochs alternate, so that other load on the
machine affects both.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from _common import AMAZON_BABY, RESULTS, hardware, read_rows, write
from torch import Tensor, nn
from torch.nn import functional

from modalign.core import seeds
from modalign.core.interfaces import Batch
from modalign.core.view import TrainView
from modalign.models.lightgcn import LightGCN, LightGCNConfig
from modalign.train.trainer import TrainOptions, fit

BAR, AIM = 4.0, 10.0
REG = 1e-4


class Straightforward:
    """The loop for comparison."""

    def __init__(self, view: TrainView, model: LightGCN, batch_size: int) -> None:
        self.n_users, self.n_items, self.batch_size = view.n_users, view.n_items, batch_size
        self.n_layers = model.config.n_layers
        entries = model.graph.scipy().tocoo()
        self.adjacency = torch.sparse_coo_tensor(
            np.stack(entries.coords).astype(np.int64), entries.data, model.graph.shape
        ).coalesce()
        start = model.embeddings.detach()
        self.users = nn.Embedding.from_pretrained(start[: self.n_users].clone(), freeze=False)
        self.items = nn.Embedding.from_pretrained(start[self.n_users :].clone(), freeze=False)
        self.optimizer = torch.optim.Adam(
            [self.users.weight, self.items.weight], lr=model.config.learning_rate
        )
        self.pairs = list(zip(view.users.tolist(), view.items.tolist(), strict=True))
        self.seen: dict[int, set[int]] = {}
        for user, item in self.pairs:
            self.seen.setdefault(user, set()).add(item)

    def loss(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        layers = [torch.cat([self.users.weight, self.items.weight])]
        for _ in range(self.n_layers):
            layers.append(torch.sparse.mm(self.adjacency, layers[-1]))
        final = torch.stack(layers, dim=1).mean(dim=1)
        user_table, item_table = torch.split(final, [self.n_users, self.n_items])
        u, i, j = user_table[users], item_table[positives], item_table[negatives]
        bpr = -functional.logsigmoid((u * i).sum(1) - (u * j).sum(1)).mean()
        first = self.users(users), self.items(positives), self.items(negatives)
        return bpr + REG / 2 * sum(e.pow(2).sum() for e in first) / len(users)

    def epoch(self) -> None:
        random.shuffle(self.pairs)
        for at in range(0, len(self.pairs), self.batch_size):
            batch = self.pairs[at : at + self.batch_size]
            negatives = []
            for user, _ in batch:
                item = random.randrange(self.n_items)
                while item in self.seen[user]:
                    item = random.randrange(self.n_items)
                negatives.append(item)
            users, positives = torch.tensor(batch).T
            self.optimizer.zero_grad()
            self.loss(users, positives, torch.tensor(negatives)).backward()
            self.optimizer.step()


def check_equal(view: TrainView, model: LightGCN, rival: Straightforward) -> None:
    """Check that loss and gradient of one batch agree, so that both do the same work."""
    at = torch.randperm(len(view.users))[:2048]
    batch = Batch(view.users[at], view.items[at], torch.randint(view.n_items, (len(at),)))
    ours = sum(model.loss(batch).values())
    theirs = rival.loss(batch.users, batch.positives, batch.negatives)
    torch.testing.assert_close(ours, theirs)
    (gradient,) = torch.autograd.grad(ours, model.embeddings)
    expected = torch.autograd.grad(theirs, [rival.users.weight, rival.items.weight])
    torch.testing.assert_close(gradient, torch.cat(expected), rtol=1e-4, atol=1e-7)


def our_epochs(view: TrainView, model: LightGCN, batch_size: int, n: int) -> list[float]:
    options = TrainOptions(epochs=n, batch_size=batch_size, device="cpu")
    return [record["seconds"] for record in fit(model, view, options).history]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=AMAZON_BABY)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS / "lightgcn_epoch.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.filterwarnings("ignore", category=UserWarning)
    random.seed(0)
    torch.manual_seed(0)
    users, items = torch.from_numpy(read_rows(args.data))
    view = TrainView(int(users.max()) + 1, int(items.max()) + 1, users, items)
    with seeds.torch_seed(1, "init"):
        model = LightGCN(LightGCNConfig(n_layers=args.layers, reg=REG), view)
    rival = Straightforward(view, model, args.batch_size)
    check_equal(view, model, rival)
    ours: list[float] = []
    theirs: list[float] = []
    our_cpu: list[float] = []
    their_cpu: list[float] = []
    our_epochs(view, model, args.batch_size, 1)
    for _ in range(args.rounds):
        began = time.process_time()
        ours += our_epochs(view, model, args.batch_size, 4)[1:]  # the first one warms up
        our_cpu.append((time.process_time() - began) / 4)
        began, began_cpu = time.perf_counter(), time.process_time()
        rival.epoch()
        theirs.append(time.perf_counter() - began)
        their_cpu.append(time.process_time() - began_cpu)
    steps = -(-len(users) // args.batch_size)
    ratio = statistics.median(theirs) / statistics.median(ours)
    report = {
        "what": f"LightGCN epoch on amazon-baby, {args.layers} layer(s), 64 columns, seconds",
        "hardware": hardware(args.threads),
        "steps": steps,
        "ours": {"median": statistics.median(ours), "best": min(ours)},
        "straightforward": {"median": statistics.median(theirs), "best": min(theirs)},
        "ratio": ratio,
        # More stable than wall-clock time if other processes share the cores.
        "cpu_seconds": {"ours": min(our_cpu), "straightforward": min(their_cpu)},
        "cpu_ratio": min(their_cpu) / min(our_cpu),
        "bar": BAR,
        "aim": AIM,
    }
    write(args.out, report)
    for name in ("ours", "straightforward"):
        median = report[name]["median"]
        print(f"{name:16} {median:.3f} s an epoch, {median / steps * 1e3:.1f} ms a step")
    print(f"ratio of processor seconds {report['cpu_ratio']:.1f}")
    print(f"ratio {ratio:.1f} (bar {BAR:g}, aim {AIM:g})")
    if ratio < BAR:
        raise SystemExit("below the bar")


if __name__ == "__main__":
    main()
