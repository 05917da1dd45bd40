"""Seconds of an epoch of the graph models of the roster on data of the size of amazon-baby.

    python benchmarks/roster_epoch.py [--models bm3,lattice] [--steps 4]

The interactions are those of amazon-baby, the features random (4,096 and 384 columns). A few
steps of the default options are timed, batches of 2,048, and scaled to an epoch; what a model does
before each epoch is added. Beside each step a product of two 2,048 x 2,048 matrices is timed, and
the seconds are also given for a machine on which that takes 0.16 s, so that other load on the
machine affects both. `build` is the constructor, with the graphs of items.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from _common import AMAZON_BABY, RESULTS, hardware, read_rows, write

from modalign.core import seeds
from modalign.core.modality import Modality
from modalign.core.view import TrainView
from modalign.models._registry import get
from modalign.train import optim
from modalign.train.batches import PairBatches

REFERENCE = 0.16
BARS = {
    "bm3": 2.4,
    "lattice": 4.0,
    "mgcn": 3.2,
    "smore": 3.3,
    "slmrec": 2.4,
    "lgmrec": 7.5,
    "grcn": 6.7,
    "da-mrs": 10.0,
    "mmgcn": 12.0,
    "mig-gt": 6.0,
    "mmgcl": 8.0,
    "clcrec": 3.0,
    "promptmm": 6.0,
    "ngcf": 0.6,
    "sgl": 0.7,
    "ncl": 0.7,
    "hccf": 0.9,
    "selfcf": 0.25,
    "directau": 0.4,
}
"""Seconds that an epoch may take on the reference machine."""


def baby(folder: Path) -> TrainView:
    """The interactions, and random features."""
    users, items = (torch.from_numpy(side) for side in read_rows(folder))
    n_items = 7050
    rng = seeds.numpy_generator(0, "features")
    widths = {"image": 4096, "text": 384}
    modalities = {
        name: Modality(
            name, rng.normal(size=(n_items, width)).astype(np.float32), np.ones(n_items, bool)
        )
        for name, width in widths.items()
    }
    return TrainView(19445, n_items, users, items, modalities)


def product() -> float:
    """Seconds of a product of two 2,048 x 2,048 matrices."""
    left = torch.ones(2048, 2048)
    start = time.perf_counter()
    left @ left
    return time.perf_counter() - start


def measure(name: str, view: TrainView, n_steps: int) -> dict[str, float]:
    """Seconds of the constructor and of an epoch, here and on the reference machine."""
    spec = get(name)
    config = spec.config()
    start = time.perf_counter()
    with seeds.torch_seed(0):
        model = spec.cls(config, view)
    build = time.perf_counter() - start
    model.train()
    batches = PairBatches(view, 2048, model.n_negatives)
    phase = model.phases()[0]
    optimizer = optim.build(phase)
    start = time.perf_counter()
    model.on_epoch(0, seeds.torch_generator(0))
    before, products, steps = time.perf_counter() - start, [product()], []
    data = batches.epoch(seeds.torch_generator(1), torch.device("cpu"))
    for step, batch in zip(range(n_steps + 1), data, strict=False):
        start = time.perf_counter()
        optimizer.zero_grad()
        torch.stack(list(model.loss(batch, phase.name).values())).sum().backward()
        optimizer.step()
        model.after_step(step, batch, seeds.torch_generator(step))
        steps.append(time.perf_counter() - start)
        products.append(product())
    n = -(-len(view.users) // 2048)
    # The first step is an epoch's first, and also compiles kernels: it counts once.
    epoch = before + steps[0] + (n - 1) * statistics.median(steps[1:])
    scale = REFERENCE / statistics.median(products)
    return {"build": build, "epoch": epoch, "reference": epoch * scale, "bar": BARS[name]}


def main() -> None:
    """Measure the models that are asked for, and keep the others of the results file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", default=",".join(BARS))
    parser.add_argument("--data", type=Path, default=AMAZON_BABY)
    parser.add_argument("--steps", type=int, default=4)
    args = parser.parse_args()
    torch.set_num_threads(1)
    view = baby(args.data)
    path = RESULTS / "roster_epoch.json"
    rows = json.loads(path.read_text())["models"] if path.exists() else {}
    for name in args.models.split(","):
        rows[name] = measure(name, view, args.steps)
        shown = ", ".join(f"{key} {value:.2f}" for key, value in rows[name].items())
        print(f"{name}: {shown}", flush=True)
        write(path, {"machine": hardware(1), "models": rows})


if __name__ == "__main__":
    main()
