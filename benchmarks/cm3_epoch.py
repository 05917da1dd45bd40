"""Time of a CM3 epoch and memory of a CM3 run, against a straightforward version of the same.

    python benchmarks/cm3_epoch.py [--data ../shared/data/amazon-baby] [--threads 2] [--steps 6]

The graph is amazon-baby's; the features are random numbers of the widths that its images and
texts usually have (4,096 and 384), since time does not depend on their values. The
straightforward version does what many libraries do: features are trainable tables under plain
Adam, read once for each linear map; the graphs are COO, all layers are stacked; uniformity
uses the distances of all pairs. Both must compute the same first loss in float32 on the same
batch; otherwise the benchmark stops.

Each version runs in its own process. A few steps are timed after two warm-up steps, and the
median is multiplied by the number of steps of an epoch (sampling and shuffling are timed
separately and added once), so the seconds of an epoch are an extrapolation. Memory is the peak
of resident memory over construction, training steps and the tables for scoring, minus the memory
of the process after its imports; the plain peak is reported as well.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from _common import AMAZON_BABY, RESULTS, hardware, read_rows, write

WIDTHS = {"image": 4096, "text": 384}
BATCH, SEED, WARM = 2048, 1, 2
TIME_BAR, MEMORY_BAR = 1 / 3, 2.5


def load(folder: Path):
    """Training pairs of the data set as rows, with random features."""
    import numpy as np
    import torch

    from modalign.core import seeds
    from modalign.core.modality import Modality
    from modalign.core.view import TrainView

    parts = [read_rows(folder, name) for name in ("train", "valid", "test")]
    n_users, n_items = (np.concatenate(parts, axis=1).max(axis=1) + 1).tolist()
    modalities = {}
    for name, width in WIDTHS.items():
        rng = seeds.numpy_generator(SEED, "features", name)
        features = rng.standard_normal((n_items, width), dtype=np.float32)
        modalities[name] = Modality(name, features, np.ones(n_items, bool))
    users, items = torch.from_numpy(parts[0])
    return TrainView(n_users, n_items, users, items, modalities)


def resident(field: str) -> int:
    """Bytes of resident memory of this process: VmRSS now, VmHWM at the peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {field} in /proc/self/status")


def our_model(view):
    from modalign.core import seeds
    from modalign.models.cm3.config import CM3Config
    from modalign.models.cm3.model import CM3

    with seeds.torch_seed(SEED, "init"):
        return CM3(CM3Config(), view)


class Straightforward:
    """The same method in straightforward code, with the initial weights of `model`."""

    def __init__(self, model, view) -> None:
        import torch
        from torch import nn

        def leaf(tensor):
            return nn.Parameter(tensor.detach().clone())

        self.features = [
            leaf(torch.from_numpy(view.modalities[n].features)) for n in model.modality_names
        ]
        hidden = model.config.hidden_size
        self.w1 = [leaf(t.first.weight[:hidden]) for t in model.towers]
        self.b1 = [leaf(t.first.bias[:hidden]) for t in model.towers]
        self.w2 = [leaf(t.second.weight) for t in model.towers]
        self.v = [leaf(t.first.weight[hidden:]) for t in model.towers]
        self.c = [leaf(t.first.bias[hidden:]) for t in model.towers]
        self.users = [leaf(table) for table in model.user_segments]
        self.preferences = leaf(model.preferences)
        self.graph, self.item_graph = (coo(g) for g in (model.graph, model.item_graph))
        self.positions = model.positions[0]
        self.config, self.n_users, self.n_items = model.config, view.n_users, view.n_items

    def parameters(self):
        lists = (self.features, self.w1, self.b1, self.w2, self.v, self.c, self.users)
        return [*(p for some in lists for p in some), self.preferences]

    def after_step(self, step, batch, rng) -> None:
        import torch

        alpha = self.config.alpha
        self.positions = torch.distributions.Beta(alpha, alpha).sample((self.n_items,))

    def loss(self, batch):
        import torch
        from torch.nn import functional

        c = self.config
        segments, ends = [], []
        for m, x in enumerate(self.features):
            hidden = functional.leaky_relu(functional.linear(x, self.w1[m], self.b1[m]))
            segments.append(functional.normalize(hidden @ self.w2[m].T))
            ends.append(functional.normalize(functional.linear(x, self.v[m], self.c[m])))
        first, second = ends
        theta = torch.acos((first * second).sum(1, keepdim=True).clamp(-1 + 1e-6, 1 - 1e-6))
        p = self.positions[:, None]
        fused = (torch.sin(p * theta) * second + torch.sin((1 - p) * theta) * first) / theta.sin()
        items = torch.cat([*segments, fused], dim=1)
        users = torch.cat([functional.normalize(table) for table in self.users], dim=1)
        layers = [torch.cat([users, items])]
        for _ in range(c.n_layers):
            layers.append(torch.sparse.mm(self.graph, layers[-1]))
        users, items = torch.stack(layers, dim=1).sum(1).split([self.n_users, self.n_items])
        weights = self.preferences.softmax(1)[:, :, None]
        users = (users.view(self.n_users, len(self.users), -1) * weights).flatten(1)
        items = items + torch.sparse.mm(self.item_graph, items)
        u, pos, neg = (
            functional.normalize(rows)
            for rows in (users[batch.users], items[batch.positives], items[batch.negatives])
        )
        alike = (1 - functional.pdist(fused[batch.negatives]).square() / 2).clamp(c.s_min, c.s_max)
        item_kernel = (-c.t * (functional.pdist(neg).square() - 2 + 2 * alike)).exp()
        user_kernel = (-c.t * functional.pdist(u).square()).exp()
        spread = user_kernel.mean().log() + item_kernel.mean().log()
        return (u - pos).square().sum(1).mean() + c.gamma * c.kappa * spread


def coo(graph):
    import numpy as np
    import torch

    matrix = graph.scipy().tocoo()
    return torch.sparse_coo_tensor(
        torch.from_numpy(np.stack([matrix.row, matrix.col]).astype(np.int64)),
        torch.from_numpy(matrix.data),
        matrix.shape,
    ).coalesce()


def child(which: str, folder: Path, threads: int, steps: int) -> dict[str, float]:
    """Run one version and report its times, its first loss and its memory."""
    import warnings

    import torch

    from modalign.core import devices, seeds
    from modalign.train import optim
    from modalign.train.batches import PairBatches
    from modalign.train.trainer import held_by

    warnings.filterwarnings("ignore", message="Sparse")
    torch.set_num_threads(threads)
    import_everything()
    imports = resident("VmRSS")
    view = load(folder)
    started = time.perf_counter()
    model = our_model(view)
    if which == "ours":
        # Our trainer does this; a straightforward loop would not.
        devices.keep_freed_memory(held_by(model))
    built = time.perf_counter() - started
    data = PairBatches(view, BATCH, negatives=True)
    rng = seeds.torch_generator(SEED, "epoch", 0)
    model.on_epoch(0, rng)
    started = time.perf_counter()
    batches = data.epoch(rng, torch.device("cpu"))
    first = next(batches)
    sampling = time.perf_counter() - started
    if which == "ours":
        (phase,) = model.phases()
        optimizer = optim.build(phase)

        def loss(batch):
            return sum(model.loss(batch).values())
    else:
        rival = Straightforward(model, view)
        optimizer = torch.optim.Adam(rival.parameters(), lr=model.config.learning_rate)
        model = None  # its memory does not count for this version

        def loss(batch):
            return rival.loss(batch)

    seconds, losses = [], []
    for step, batch in enumerate([first, *(next(batches) for _ in range(WARM + steps - 1))]):
        started = time.perf_counter()
        optimizer.zero_grad()
        value = loss(batch)
        value.backward()
        optimizer.step()
        (model or rival).after_step(step, batch, rng)
        seconds.append(time.perf_counter() - started)
        losses.append(value.item())
        del value  # as the trainer does; otherwise the graph of this step lives during the next one
    if which == "ours":
        optimizer.zero_grad()  # as the trainer does before it validates
        model.scorer()
    steady = sorted(seconds[WARM:])
    return {
        "build_seconds": built,
        "sampling_seconds": sampling,
        "step_seconds": steady[len(steady) // 2],
        "slowest_step_seconds": steady[-1],
        "steps_of_an_epoch": len(data),
        "first_loss": losses[0],
        "imports_bytes": imports,
        "peak_bytes": resident("VmHWM"),
        "feature_bytes": sum(m.features.nbytes for m in view.modalities.values()),
    }


def import_everything() -> None:
    """Train a toy model, to load what libraries import on first use."""
    import torch

    from modalign.models.cm3.config import CM3Config
    from modalign.models.cm3.model import CM3
    from modalign.testing.toy import toy_dataset
    from modalign.train.trainer import TrainOptions, fit

    view = toy_dataset().view()
    torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], fused=True)
    fit(CM3(CM3Config(embedding_size=8), view), view, TrainOptions(epochs=1, device="cpu"))


def run(which: str, args: argparse.Namespace) -> dict[str, float]:
    environment = dict(os.environ)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        environment[name] = str(args.threads)
    command = [sys.executable, __file__, "--child", which]
    command += ["--data", str(args.data), "--threads", str(args.threads)]
    command += ["--steps", str(args.steps)]
    out = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if out.returncode:
        raise SystemExit(out.stderr)
    return json.loads(out.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=AMAZON_BABY)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--out", type=Path, default=RESULTS / "cm3_epoch.json")
    parser.add_argument("--child", choices=("ours", "straightforward"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(child(args.child, args.data, args.threads, args.steps)))
        return
    read_rows(args.data)  # says what is missing before any process starts
    results = {which: run(which, args) for which in ("ours", "straightforward")}
    ours, rival = results["ours"], results["straightforward"]
    if abs(ours["first_loss"] - rival["first_loss"]) > 1e-3:
        raise SystemExit(f"the two do not compute the same loss: {results}")
    for result in results.values():
        result["epoch_seconds_extrapolated"] = (
            result["sampling_seconds"] + result["steps_of_an_epoch"] * result["step_seconds"]
        )
        result["memory_over_features"] = (result["peak_bytes"] - result["imports_bytes"]) / result[
            "feature_bytes"
        ]
    ratio = ours["epoch_seconds_extrapolated"] / rival["epoch_seconds_extrapolated"]
    report = {
        "what": "CM3 epoch on amazon-baby's graph, random features of 4,096 and 384 columns",
        "hardware": hardware(args.threads),
        "timed_steps": args.steps,
        **results,
        "time_ratio": ratio,
        "time_bar": TIME_BAR,
        "memory_over_features": ours["memory_over_features"],
        "memory_bar": MEMORY_BAR,
    }
    write(args.out, report)
    for which, result in results.items():
        print(
            f"{which:16} {result['step_seconds']:.3f} s a step, "
            f"{result['epoch_seconds_extrapolated']:.1f} s an epoch of "
            f"{result['steps_of_an_epoch']} steps (extrapolated from {args.steps}), peak "
            f"{result['peak_bytes'] / 1e6:.0f} MB of which {result['imports_bytes'] / 1e6:.0f} "
            f"imports: {result['memory_over_features']:.2f} times the features"
        )
    print(f"time {ratio:.3f} of the straightforward version (bar {TIME_BAR:.3f}); ", end="")
    print(f"memory {ours['memory_over_features']:.2f} times the features (bar {MEMORY_BAR})")


if __name__ == "__main__":
    main()
