"""The time of an epoch of distillation against the student's own epoch, by logit loss.

    python benchmarks/distill_epoch.py [--data data/amazon-baby] [--threads 1] [--epochs 5]

The student (ids of the data set's size, 64 dimensions) is trained by BPR alone, and distilled from
random vectors with default options, with `sort` and with `sinkhorn`; no validation. Medians of the
epochs after the first. Bars: at most 2 times the student's own epoch with sort, 4 with sinkhorn.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

import torch
from _common import RESULTS, write

from modalign.core import seeds
from modalign.core.view import TrainView
from modalign.data.dataset import Dataset
from modalign.distillation.plan import DistillationPlan
from modalign.distillation.source import VectorSource
from modalign.distillation.task import DistillTask
from modalign.experiments.run_folder import environment
from modalign.train.trainer import TrainOptions, fit

BARS = {"sort": 2.0, "sinkhorn": 4.0}


def epoch(view: TrainView, logit: str | None, epochs: int) -> float:
    """Median seconds of an epoch."""
    plan = DistillationPlan.of("no-assistant", {"logit": logit} if logit else {})
    stage = plan.stages[0]
    with seeds.torch_seed(1):
        student = stage.spec.cls(stage.config, view)
        source = VectorSource(torch.randn(view.n_users, 64), torch.randn(view.n_items, 64))
        task = DistillTask(student, source, plan.config, view) if logit else student
    options = TrainOptions(epochs=epochs + 1, batch_size=stage.config.batch_size, device="cpu")
    history = fit(task, view, options).history
    return statistics.median(one["seconds"] for one in history[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("data/amazon-baby"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    dataset = Dataset.load(args.data)
    view = dataset.view()
    seconds = {name or "bpr": epoch(view, name, args.epochs) for name in (None, *BARS)}
    rows = {}
    for name, value in seconds.items():
        ratio = value / seconds["bpr"]
        bar = BARS.get(name)
        rows[name] = {"seconds": value, "ratio": ratio, "bar": bar}
        verdict = "" if bar is None else f"bar {bar}: {'met' if ratio <= bar else 'MISSED'}"
        print(f"{name:9s} {value:7.3f} s per epoch  {ratio:5.2f} times  {verdict}")
    document = {"data": dataset.name, "environment": environment(), "rows": rows}
    write(RESULTS / "distill_epoch.json", document)


if __name__ == "__main__":
    main()
