"""The time of a training step of each model against the arithmetic that it requires.

    python benchmarks/step_floor.py [--models mmssl,bandvae,recgoat] [--threads 1] [--steps 6]

The graph is amazon-baby's (`../shared/data/amazon-baby`) with random features of the widths that
its images and texts usually have; a batch has 2,048 pairs, or 2,048 users for a model that reads
histories. Options are the defaults.

The arithmetic is counted in the steps themselves: every dense product of torch, including those of
the gradients, and every sum of rows (a product with a sparse matrix, 2 x entries x columns). The
floor is the number of these operations divided by the rates of this machine, measured in the same
process with one product of 2,048 x 2,048 matrices and one sum of the graph's rows of 64 columns;
elementwise work (exponentials, normalisations, Adam) costs nothing in it. Bar: 5 times the floor.

The overhead of Python is the share of a step during which no operator of torch runs: the length of
the step minus the operators' own times, both under torch's profiler, which slows down Python but
not the operators. Work in numpy or scipy counts as overhead. Bar: a tenth. The peak of resident
memory is that of the whole process, including imports and features.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from _common import AMAZON_BABY, RESULTS, write

MODELS = ("mmssl", "bandvae", "recgoat", "lightgcn", "freedom", "cm3")
BATCH = 2048
FLOOR_BAR, PYTHON_BAR = 5.0, 0.1


def operations() -> tuple[Any, dict[str, float]]:
    """A mode that counts dense products, and a count of the sums of rows beside it."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    sparse = {"operations": 0.0}

    def of_bags(weight: Any, indices: Any, *rest: Any, **named: Any) -> int:
        sparse["operations"] += 2.0 * indices[0] * weight[1]
        return 0

    def of_product(left: Any, right: Any, **named: Any) -> int:
        return 2 * math.prod(left) * (right[-1] if len(right) > 1 else 1)

    def of_added_product(sum_: Any, left: Any, right: Any, **named: Any) -> int:
        return of_product(left, right)

    aten = torch.ops.aten
    custom = {aten._embedding_bag: of_bags, aten._embedding_bag_forward_only: of_bags}
    # torch does not count these, only their out-of-place forms.
    custom |= {aten.addmm_: of_added_product, aten.baddbmm_: of_added_product}
    custom |= {aten.mv: of_product, aten.addmv: of_added_product, aten.addmv_: of_added_product}
    return FlopCounterMode(display=False, custom_mapping=custom), sparse


def rates(view: Any) -> tuple[float, float]:
    """Operations per second of a dense product and of a sum of rows."""
    import torch
    from torch.nn import functional

    a = torch.randn(BATCH, BATCH)
    table = torch.randn(view.n_users + view.n_items, 64)
    columns, starts = (
        view.items + view.n_users,
        torch.searchsorted(view.users, torch.arange(view.n_users)),
    )
    weights = torch.rand(len(columns))

    def bags() -> torch.Tensor:
        return functional.embedding_bag(
            columns, table, starts, mode="sum", per_sample_weights=weights
        )

    return (
        2.0 * BATCH**3 / best(lambda: a @ a),
        2.0 * len(columns) * 64 / best(bags),
    )


def best(work: Callable[[], Any], repeats: int = 7) -> float:
    """Seconds of the fastest call after the first."""
    work()
    found = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return min(found)


def stepping(spec: Any, view: Any) -> Iterator[Callable[[], None]]:
    """Yield training steps as the trainer does them; call each once."""
    import torch

    from modalign.core import devices, seeds
    from modalign.testing import harness
    from modalign.train import optim
    from modalign.train.trainer import held_by, sum_of

    with seeds.torch_seed(1, "init"):
        model = spec.cls(spec.config(batch_size=BATCH), view)
    devices.keep_freed_memory(held_by(model))
    model.train()
    model.on_epoch(0, seeds.torch_generator(1, "epoch", 0))
    phases = list(model.phases())
    optimizers = [optim.build(phase) for phase in phases]
    rng = seeds.torch_generator(1, "steps", 0)
    data = harness.batches(spec, view, BATCH)
    number = 0
    while True:
        for batch in data:

            def step(batch: Any = batch, number: int = number) -> None:
                for phase, optimizer in zip(phases, optimizers, strict=True):
                    if number % phase.every:
                        continue
                    for one in optimizers:
                        one.zero_grad(set_to_none=True)
                    sum_of(model.loss(batch, phase.name)).backward()
                    optimizer.step()
                model.after_step(number, batch, rng)

            yield step
            number += 1
            torch.manual_seed(number)


def child(name: str, folder: Path, threads: int, steps: int) -> dict[str, Any]:
    """Measure one model in this process."""
    import torch
    from cm3_epoch import load  # the same data
    from torch.profiler import ProfilerActivity, profile

    from modalign.models import _registry as registry

    torch.set_num_threads(threads)
    view, spec = load(folder), registry.get(name)
    order = torch.argsort(view.users)  # as in a prepared data set
    object.__setattr__(view, "users", view.users[order])
    object.__setattr__(view, "items", view.items[order])
    before = rates(view)
    each = stepping(spec, view)
    for _ in range(2):
        next(each)()
    seconds, worked = [], []
    for _ in range(steps):
        step = next(each)
        began, worked_before = time.perf_counter(), time.process_time()
        step()
        worked.append(time.process_time() - worked_before)
        seconds.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # before profiling
    # The speed of a shared machine varies: the floor uses the better of two measurements.
    dense_rate, sparse_rate = map(max, before, rates(view))
    counter, sparse = operations()
    with counter:
        next(each)()
    step = next(each)
    with profile(activities=[ProfilerActivity.CPU]) as found:
        began = time.perf_counter()
        step()
        profiled = time.perf_counter() - began
    inside = sum(one.self_cpu_time_total for one in found.key_averages()) / 1e6
    dense = float(counter.get_total_flops())
    floor = dense / dense_rate + sparse["operations"] / sparse_rate
    median = statistics.median(seconds)
    return {
        "model": name,
        "step_seconds": median,
        # Less than the step's time if other processes used the core (one thread).
        "processor_seconds": statistics.median(worked),
        "dense_operations": dense,
        "sparse_operations": sparse["operations"],
        "dense_rate": dense_rate,
        "sparse_rate": sparse_rate,
        "floor_seconds": floor,
        "times_the_floor": median / floor,
        "python_share": max(0.0, 1 - inside / profiled),
        "peak_bytes": peak,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--data", type=Path, default=AMAZON_BABY)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(child(args.child, args.data, args.threads, args.steps)))
        return
    from modalign.experiments.run_folder import environment

    rows = []
    for name in args.models.split(","):
        command = [sys.executable, __file__, "--child", name, "--data", str(args.data)]
        command += ["--threads", str(args.threads), "--steps", str(args.steps)]
        made = subprocess.run(command, check=True, capture_output=True, text=True)
        row = json.loads(made.stdout.splitlines()[-1])
        rows.append(row)
        times, share = row["times_the_floor"], row["python_share"]
        print(
            f"{name:10s} {row['step_seconds'] * 1e3:8.1f} ms a step "
            f"({row['processor_seconds'] * 1e3:.1f} of processor time), floor "
            f"{row['floor_seconds'] * 1e3:7.1f} ms: {times:5.2f} times (bar {FLOOR_BAR:g}: "
            f"{'met' if times <= FLOOR_BAR else 'MISSED'}), outside operators {share:6.1%} "
            f"(bar {PYTHON_BAR:.0%}: {'met' if share <= PYTHON_BAR else 'MISSED'}), "
            f"peak {row['peak_bytes'] / 2**30:.2f} GiB",
            flush=True,
        )
    out = RESULTS / "step_floor.json"
    write(out, {"rows": rows, "environment": environment()})
    print(f"written to {out}")


if __name__ == "__main__":
    main()
