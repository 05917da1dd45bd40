"""Times of batched Sinkhorn against POT's batch solver, and of sorting against Sinkhorn.

    python benchmarks/sinkhorn.py [--threads 2] [--repeats 5] [--most 200] [--json FILE]

Problems: uniform random costs in [0, 1), uniform weights, float32, reg 0.05; many of 4 x 4, few
of 512 x 512. Both solvers get the same costs and must reach an L1 marginal error of 1e-4 on every
problem. POT stops all problems of a batch together, by the L2 norm of the row error; it gets the
loosest of a few thresholds, down to 1e-4 / sqrt(n), that brings the largest L1 error down to 1e-4.
Both of its Sinkhorn solvers are timed: the log domain (its default) and the plain kernel, which
underflows at smaller reg. If POT needs thousands of sweeps, as for some 4 x 4 problems, it is
stopped after --most: its time is then a lower bound, and its error, still above 1e-4, is reported.
Values are compared as `<plan, C>`, on the problems for which POT reached 1e-4.

The logit loss compares sorting with the debiased divergence as distillation uses it: 2,048
scalars a side, p = 2, reg 0.01, sorted start, tolerance 1e-3, at most 60 sweeps, forward and
backward. The same divergence is timed for other sizes on one thread.

Results are medians over repeats after one warm-up (POT's: of one run), as a table and, with
--json, in a file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

BAR_SMALL, BAR_LARGE, BAR_SORT, BAR_VALUE = 5.0, 1.0, 50.0, 1e-4
REG, ERROR = 0.05, 1e-4
CPU_TIME = False  # set by --cpu-time


def clock() -> float:
    """Seconds of wall-clock time, or of processor time."""
    return time.process_time() if CPU_TIME else time.perf_counter()


def median_ms(call: Callable[[], object], repeats: int) -> float:
    """Median milliseconds of a call, after a warm-up."""
    call()
    times = []
    for _ in range(repeats):
        start = clock()
        call()
        times.append(1e3 * (clock() - start))
    return statistics.median(times)


def errors(plan):
    """L1 distance of each problem's marginals from uniform ones, the larger of both sides."""
    rows = (plan.sum(-1) - 1.0 / plan.shape[-2]).abs().sum(-1)
    columns = (plan.sum(-2) - 1.0 / plan.shape[-1]).abs().sum(-1)
    return rows.maximum(columns)


def pots(cost, method: str, most: int):
    """POT's result at the loosest threshold that serves all problems, and its milliseconds."""
    from ot.batch import solve_batch

    for factor in (4.0, 2.0, 1.0):
        threshold = factor * ERROR / cost.shape[-1] ** 0.5
        start = clock()
        result = solve_batch(cost, REG, max_iter=most, tol=threshold, method=method)
        took = 1e3 * (clock() - start)
        spent = int(result.log["n_iter"]) + 1 >= most
        if spent or float(errors(result.plan).max()) <= ERROR:
            break
    return result, took


def solvers(n_problems: int, n: int, repeats: int, most: int) -> dict[str, float | int]:
    """Times, errors and values of both libraries on one kind of problem."""
    import torch

    from modalign import ot

    cost = torch.rand(n_problems, n, n, generator=torch.Generator().manual_seed(1))

    def ours():
        return ot.sinkhorn(cost, reg=REG, value="sharp", tolerance=ERROR)

    solved = ours()
    row: dict[str, float | int] = {
        "problems": n_problems,
        "n": n,
        "ours_ms": median_ms(ours, repeats),
        "ours_error": float(errors(solved.plan).max()),
        "converged": float(solved.converged.float().mean()),
        "most_sweeps": int(solved.iterations.max()),
    }
    for method in ("log_sinkhorn", "sinkhorn"):
        result, row[f"{method}_ms"] = pots(cost, method, most)
        left = errors(result.plan)
        row[f"{method}_error"] = float(left.max())
        row[f"{method}_converged"] = float((left <= ERROR).float().mean())
        row[f"{method}_sweeps"] = int(result.log["n_iter"]) + 1
        gap = (result.value_linear - solved.value).abs()[left <= ERROR]
        row[f"{method}_gap"] = float(gap.max())
    return row


def losses(n: int, repeats: int) -> dict[str, float | int]:
    """Times of the two losses between scalars, forward and backward."""
    import torch

    from modalign import ot

    rng = torch.Generator().manual_seed(2)
    x = torch.nn.functional.logsigmoid(2.0 * torch.randn(n, generator=rng) + 1.0)
    y = torch.nn.functional.logsigmoid(torch.randn(n, generator=rng)).requires_grad_()

    def by_sorting():
        torch.autograd.grad(ot.sorted_transport(x, y), y)

    def by_sinkhorn():
        solved = ot.sinkhorn_divergence(
            x.unsqueeze(-1),
            y.unsqueeze(-1),
            reg=0.01,
            start="sorted",
            tolerance=1e-3,
            max_iterations=60,
        )
        torch.autograd.grad(solved.value, y)

    return {
        "n": n,
        "sort_ms": median_ms(by_sorting, 4 * repeats),
        "sinkhorn_ms": median_ms(by_sinkhorn, repeats),
    }


def show(
    rows: list[dict[str, float | int]],
    logits: dict[str, float | int],
    sizes: list[dict[str, float | int]],
) -> None:
    """The results as tables with each figure's bar."""
    print("| problems | ours ms | POT log ms | POT kernel ms | ratio | bar | gap | error | done |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for row, bar in zip(rows, (BAR_SMALL, BAR_LARGE), strict=True):
        best = min(row["log_sinkhorn_ms"], row["sinkhorn_ms"])
        print(
            f"| {row['problems']} of {row['n']} x {row['n']} | {row['ours_ms']:.1f} "
            f"| {row['log_sinkhorn_ms']:.1f} | {row['sinkhorn_ms']:.1f} "
            f"| {row['log_sinkhorn_ms'] / row['ours_ms']:.1f}, {best / row['ours_ms']:.1f} "
            f"| {bar:g} | {row['log_sinkhorn_gap']:.1e} "
            f"| {row['ours_error']:.1e}, POT {row['log_sinkhorn_error']:.1e} "
            f"| {100 * row['converged']:.1f}%, POT {100 * row['log_sinkhorn_converged']:.1f}% |"
        )
    ratio = logits["sinkhorn_ms"] / logits["sort_ms"]
    print(
        f"\nlogit loss of {logits['n']}: sorting {logits['sort_ms']:.3f} ms, Sinkhorn "
        f"{logits['sinkhorn_ms']:.1f} ms, ratio {ratio:.0f} (bar {BAR_SORT:g}); "
        f"largest gap of values allowed: {BAR_VALUE:g}"
    )
    for size in sizes:
        print(f"one thread, {size['n']} scalars a side: Sinkhorn {size['sinkhorn_ms']:.1f} ms")


def main() -> None:
    """Run all and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--small", type=int, default=4096, help="problems of 4 x 4")
    parser.add_argument("--large", type=int, default=64, help="problems of 512 x 512")
    parser.add_argument("--logits", type=int, default=2048)
    parser.add_argument("--most", type=int, default=200, help="maximum number of sweeps of POT")
    parser.add_argument("--json", type=Path, help="file to write the numbers to")
    parser.add_argument(
        "--cpu-time",
        action="store_true",
        help="measure processor time, on one thread",
    )
    given = parser.parse_args()
    global CPU_TIME
    CPU_TIME = given.cpu_time
    os.environ["OMP_NUM_THREADS"] = str(given.threads)
    import torch

    torch.set_num_threads(given.threads)
    wanted = ((given.small, 4), (given.large, 512))
    rows = [solvers(count, n, given.repeats, given.most) for count, n in wanted]
    logits = losses(given.logits, given.repeats)
    torch.set_num_threads(1)
    sizes = [losses(n, given.repeats) for n in (512, 1024, 2048)]
    show(rows, logits, sizes)
    if given.json:
        machine = {"torch": torch.__version__, "machine": platform.machine()}
        how = {**machine, "threads": given.threads, "cpu_time": given.cpu_time}
        whole = {**how, "solvers": rows, "logits": logits, "one_thread": sizes}
        given.json.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
