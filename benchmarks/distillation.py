"""TARec on one data set over seeds: teacher, vanilla student, variants, full.

    python benchmarks/distillation.py --data data/bench-ml --teacher cm3 --seeds 1,2,3,4,5

Teachers are the finished runs of `benchmarks/leaderboard.py` (`runs/leaderboard/DATA/MODEL-SEED`);
EASE has one seed. Each seed of a row is distilled from the teacher of that seed. `--rows` selects
from

    vanilla             the student alone, trained by BPR
    full, no-assistant, no-wasserstein, no-assistant-no-wasserstein, no-embedding
    sort, paired        full, with exact transport by sorting, or logit by logit in place of sets
    per-user, masses    the logits of one user's candidates, as locations and as masses
    warm-start-only     the control: the assistant's and the student's start, trained by BPR alone
    from-random         full, from random vectors
    as-printed          the paper's weights, sums and sharp value, from random vectors
    with-ease           full, from EASE and the teacher together

Options of all distilled rows are in `benchmarks/configs/DATA/distill.yaml` if a search on
validation found better ones than the defaults. Finished runs are kept in
`runs/distillation/DATA/TEACHER`; an interrupted run is resumed. Results are written to
`benchmarks/results/distillation-DATA-TEACHER.json`: means, deviations, and tests over users and
between seeds of each row against `full`, `warm-start-only`, `with-ease` and the teacher; the
p-values of one such family are corrected by Holm's method.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from _common import over_seeds, tuned, write
from rich.console import Console

from modalign.data.dataset import Dataset
from modalign.distillation.run import distill
from modalign.evaluate.compare import RunResult, average, compare
from modalign.experiments.fit import fit, load_model
from modalign.experiments.options import RunOptions
from modalign.experiments.run_folder import environment
from modalign.sweeps.ablation import corrected_together
from modalign.train.callbacks import ProgressBar

HERE = Path(__file__).parent
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "no-assistant-no-wasserstein": ("no-assistant-no-wasserstein", {}),
    "no-assistant": ("no-assistant", {}),
    "no-wasserstein": ("no-wasserstein", {}),
    "no-embedding": ("no-embedding", {}),
    "full": ("full", {}),
    "sort": ("full", {"logit": "sort"}),
    "paired": ("full", {"logit": "paired"}),
    "per-user": ("per-user", {}),
    "masses": ("masses", {}),
    "warm-start-only": ("warm-start-only", {}),
    "from-random": ("from-random", {}),
    "with-ease": ("full", {}),
    "as-printed": ("as-printed", {"student.residual": False}),
}
METRICS = ("recall@20", "ndcg@20")


def train(row: str, seed: int, dataset: Dataset, teachers: Path, name: str, out: Path) -> None:
    """Train one run, or resume it.

    Args:
        row: a row of the table.
        seed: seed of the run.
        dataset: the data.
        teachers: folder of the teachers' runs.
        name: model of the teacher.
        out: run folder.
    """
    console = Console(stderr=True)
    options = tuned(HERE, dataset.name, "distill")
    if row == "vanilla":
        own = {"residual": True, "learning_rate": 1e-3, "patience": 10}
        own |= {k[8:]: v for k, v in options.items() if k.startswith("student.")}
        bar = [ProgressBar(console, f"vanilla {seed}")]
        fit(dataset, "mlprec", seed=seed, out=out, mask="train", resume=True, callbacks=bar, **own)
        return
    variant, own = ROWS[row]
    chosen = [teachers / f"{name}-{seed}"]
    if row == "with-ease":
        chosen.append(teachers / "ease-1")
    distill(
        [load_model(one, dataset) for one in chosen],
        dataset,
        variant=variant,
        seed=seed,
        out=out,
        run=RunOptions(mask="train", resume=True),
        progress=lambda stage: [ProgressBar(console, f"{row} {seed} {stage}")],
        **{**options, **own},
    )


def summary(folders: list[Path]) -> dict[str, Any]:
    """Means and deviations over seeds."""
    results = [json.loads((one / "results.json").read_text()) for one in folders]
    found: dict[str, Any] = {"seeds": [one["seed"] for one in results]}
    metrics = ("recall@10", "recall@20", "ndcg@10", "ndcg@20", "recall@50", "ndcg@50")
    found |= over_seeds([one["test"] for one in results], metrics)
    found["valid recall@20"] = statistics.fmean(one["valid"]["recall@20"] for one in results)
    found["seconds"] = statistics.fmean(one["seconds"] for one in results)
    found["parameters"] = results[0]["parameters"]
    return found


def result(name: str, folders: list[Path]) -> RunResult:
    """The mean over the seeds of a row."""
    return average(name, [RunResult.read(one, name) for one in folders])


def against(base: str, runs: dict[str, RunResult]) -> list[dict[str, Any]]:
    """Tests of one row against all others, corrected together within each metric."""
    others = [runs[name] for name in runs if name != base]
    pairs = [pair for one in others for pair in compare([runs[base], one]).pairs]
    families = [[pair for pair in pairs if pair.metric == metric] for metric in METRICS]
    return [vars(pair) for family in families for pair in corrected_together(family)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--teacher", default="cm3")
    parser.add_argument("--seeds", default="1,2,3,4,5")
    parser.add_argument("--rows", default="vanilla," + ",".join(ROWS))
    parser.add_argument("--finished", action="store_true", help="use finished runs, train none")
    parser.add_argument("--teachers", type=Path, default=Path("runs/leaderboard"))
    parser.add_argument("--runs", type=Path, default=Path("runs/distillation"))
    args = parser.parse_args()
    dataset = Dataset.load(args.data)
    teachers, home = args.teachers / dataset.name, args.runs / dataset.name / args.teacher
    seeds = [int(one) for one in args.seeds.split(",")]
    rows = args.rows.split(",")
    folders = {args.teacher: [teachers / f"{args.teacher}-{seed}" for seed in seeds]}
    folders["ease"] = [teachers / "ease-1"]
    for seed in seeds:
        for row in rows:
            out = home / f"{row}-{seed}"
            done = out / ("results.json" if row == "vanilla" else "student/results.json")
            if not done.is_file():
                if args.finished:
                    continue
                train(row, seed, dataset, teachers, args.teacher, out)
            if row == "vanilla":
                folders.setdefault(row, []).append(out)
                continue
            folders.setdefault(row, []).append(out / "student")
            if row in ("full", "with-ease"):
                folders.setdefault(f"{row}: assistant", []).append(out / "assistant")
    found = {name: summary(runs) for name, runs in folders.items()}
    for name, row in found.items():
        spread = row["recall@20 deviation"]
        print(f"{name:30s} {row['recall@20']:.4f} +- {spread:.4f} / {row['ndcg@20']:.4f}")
    runs = {name: result(name, one) for name, one in folders.items()}
    bases = [
        name for name in ("full", "warm-start-only", "with-ease", args.teacher) if name in runs
    ]
    tests = {base: against(base, runs) for base in bases}
    document = {
        "data": dataset.name,
        "fingerprint": dataset.fingerprint,
        "teacher": args.teacher,
        "environment": environment(),
        "rows": found,
        "tests": tests,
    }
    out = HERE / "results" / f"distillation-{dataset.name}-{args.teacher}.json"
    write(out, document)
    print(f"written to {out}")


if __name__ == "__main__":
    main()
