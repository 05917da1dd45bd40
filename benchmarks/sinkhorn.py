"""Times of batched Sinkhorn against POT's batch solver, and of sorting against Sinkhorn.

    python benchmarks/sinkhorn.py [--threads 2] [--repeats 5] [--small 4096] [--large 64]

Problems: uniform random costs in [0, 1), uniform weights, float32, reg 0.05; many of 4 x 4, few
of 512 x 512. Both solvers get the same costs and are asked for an L1 marginal error of 1e-4.
POT stops all problems of a batch together, on the L2 norm of the row error; it is given the
loosest stopping threshold of a falling row, 1e-4 / sqrt(n) last, whose worst L1 error is as good as
ours, and both of its Sinkhorn solvers are timed: the log domain (its default) and the plain
kernel, which underflows at smaller reg. Some 4 x 4 problems take thousands of sweeps at this reg;
both solvers stop at the same most sweeps and the share that converged is written. Values are
compared as `<plan, C>`.

The logit loss compares sorting with the debiased divergence as distillation uses it: 2,048
scalars a side, p = 2, reg 0.01, sorted start, at most 60 sweeps, forward and backward.

Results are medians over repeats after one warm-up, as a table and, with --json, in a file.
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
REG, ERROR, MOST = 0.05, 1e-4, 5000


def median_ms(call: Callable[[], object], repeats: int) -> float:
    """Median milliseconds of a call, after one that does not count."""
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def worst_error(plan) -> float:
    """Largest L1 distance of a batch's marginals from uniform ones, over both sides."""
    rows = (plan.sum(-1) - 1.0 / plan.shape[-2]).abs().sum(-1).max()
    columns = (plan.sum(-2) - 1.0 / plan.shape[-1]).abs().sum(-1).max()
    return float(max(rows, columns))


def pots_threshold(cost, target: float, method: str) -> float:
    """The loosest L2 threshold that brings POT's worst L1 error to the target."""
    from ot.batch import solve_batch

    last = ERROR / cost.shape[-1] ** 0.5
    for threshold in (4.0 * last, 2.0 * last, last):
        solved = solve_batch(cost, REG, max_iter=MOST, tol=threshold, method=method)
        if worst_error(solved.plan) <= target:
            return threshold
    return last


def solvers(n_problems: int, n: int, repeats: int) -> dict[str, float | int]:
    """Times, errors and values of both libraries on one kind of problem."""
    import torch
    from ot.batch import solve_batch

    from modalign import ot

    cost = torch.rand(n_problems, n, n, generator=torch.Generator().manual_seed(1))

    def ours():
        return ot.sinkhorn(cost, reg=REG, value="sharp", tolerance=ERROR, max_iterations=MOST)

    solved = ours()
    row: dict[str, float | int] = {
        "problems": n_problems,
        "n": n,
        "ours_ms": median_ms(ours, repeats),
        "ours_error": worst_error(solved.plan),
        "converged": float(solved.converged.float().mean()),
        "median_sweeps": float(solved.iterations.float().median()),
        "most_sweeps": int(solved.iterations.max()),
    }
    target = max(ERROR, row["ours_error"])
    for method in ("log_sinkhorn", "sinkhorn"):
        tolerance = pots_threshold(cost, target, method)

        def theirs(method=method, tolerance=tolerance):
            return solve_batch(cost, REG, max_iter=MOST, tol=tolerance, method=method)

        result = theirs()
        row[f"{method}_ms"] = median_ms(theirs, repeats)
        row[f"{method}_error"] = worst_error(result.plan)
        row[f"{method}_sweeps"] = int(result.log["n_iter"]) + 1
        gap = (result.value_linear - solved.value).abs()[solved.converged]
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


def show(rows: list[dict[str, float | int]], logits: dict[str, float | int]) -> None:
    """The results as a table with each figure's bar."""
    print("| problems | ours ms | POT log ms | POT kernel ms | ratio | bar | gap | error | done |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for row, bar in zip(rows, (BAR_SMALL, BAR_LARGE), strict=True):
        ratio = row["log_sinkhorn_ms"] / row["ours_ms"]
        print(
            f"| {row['problems']} of {row['n']} x {row['n']} | {row['ours_ms']:.1f} "
            f"| {row['log_sinkhorn_ms']:.1f} | {row['sinkhorn_ms']:.1f} | {ratio:.1f} | {bar:g} "
            f"| {row['log_sinkhorn_gap']:.1e} | {row['ours_error']:.1e} "
            f"| {100 * row['converged']:.1f}% |"
        )
    ratio = logits["sinkhorn_ms"] / logits["sort_ms"]
    print(
        f"\nlogit loss of {logits['n']}: sorting {logits['sort_ms']:.3f} ms, Sinkhorn "
        f"{logits['sinkhorn_ms']:.1f} ms, ratio {ratio:.0f} (bar {BAR_SORT:g}); "
        f"largest gap of values allowed: {BAR_VALUE:g}"
    )


def main() -> None:
    """Runs all and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--small", type=int, default=4096, help="problems of 4 x 4")
    parser.add_argument("--large", type=int, default=64, help="problems of 512 x 512")
    parser.add_argument("--logits", type=int, default=2048)
    parser.add_argument("--json", type=Path, help="file to write the numbers to")
    given = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(given.threads)
    import torch

    torch.set_num_threads(given.threads)
    rows = [solvers(given.small, 4, given.repeats), solvers(given.large, 512, given.repeats)]
    logits = losses(given.logits, given.repeats)
    show(rows, logits)
    if given.json:
        machine = {"torch": torch.__version__, "machine": platform.machine()}
        whole = {**machine, "threads": given.threads, "solvers": rows, "logits": logits}
        given.json.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
