"""All models on one data set, several seeds, paired tests: the tables of the README.

    python benchmarks/leaderboard.py --data data/bench-ml --models all --seeds 1,2,3,4,5

Options of each model come from `benchmarks/configs/DATA/MODEL.yaml` where that exists (found by
`benchmarks/tune.py` on validation), else they are the defaults. Finished runs are not run again.
Writes `benchmarks/results/leaderboard-DATA.json`.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from rich.console import Console

from modalign import registry, settings
from modalign.data.dataset import Dataset
from modalign.errors import RunError
from modalign.experiment import fit
from modalign.report.side_by_side import compare_runs
from modalign.run_folder import environment, read_run
from modalign.train.callbacks import ProgressBar

HERE = Path(__file__).parent
CLOSED = ("popularity", "itemknn", "ease")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", default="all")
    parser.add_argument("--seeds", default="1,2,3,4,5")
    parser.add_argument("--mask", default="train")
    parser.add_argument("--runs", type=Path, default=Path("runs/leaderboard"))
    parser.add_argument("--finished", action="store_true", help="only runs that are there")
    args = parser.parse_args()
    dataset = Dataset.load(args.data)
    specs = registry.specs()
    names = list(specs) if args.models == "all" else args.models.split(",")
    if not dataset.modalities:
        names = [n for n in names if "modalities" not in specs[n].needs]
    console = Console(stderr=True)
    folders: dict[str, list[Path]] = {}
    options: dict[str, dict] = {}
    for name in names:
        path = HERE / "configs" / dataset.name / f"{name}.yaml"
        options[name] = settings.read_yaml(path) if path.exists() else {}
        seeds = [1] if name in CLOSED else [int(s) for s in args.seeds.split(",")]
        for seed in seeds:
            folder = args.runs / dataset.name / f"{name}-{seed}"
            folders.setdefault(name, []).append(folder)
            try:
                read_run(folder)
            except RunError:
                if args.finished:
                    folders[name].remove(folder)
                    continue
                fit(
                    dataset,
                    name,
                    seed=seed,
                    out=folder,
                    mask=args.mask,
                    resume=True,
                    callbacks=[ProgressBar(console, f"{name} {seed}")],
                    **options[name],
                )
    folders = {name: runs for name, runs in folders.items() if runs}
    rows = {}
    for name, runs in folders.items():
        results = [json.loads((run / "results.json").read_text()) for run in runs]
        rows[name] = {"options": options[name], "seeds": [r["seed"] for r in results]}
        for metric in ("recall@10", "recall@20", "ndcg@10", "ndcg@20"):
            values = [r["test"][metric] for r in results]
            rows[name][metric] = statistics.fmean(values)
            rows[name][f"{metric} deviation"] = statistics.stdev(values) if len(values) > 1 else 0.0
        rows[name]["valid recall@20"] = statistics.fmean(r["valid"]["recall@20"] for r in results)
        rows[name]["seconds"] = statistics.fmean(r["seconds"] for r in results)
        rows[name]["epochs"] = statistics.fmean(r["epochs"] for r in results)
        print(
            f"{name:12s} recall@20 {rows[name]['recall@20']:.4f} "
            f"+- {rows[name]['recall@20 deviation']:.4f}  ndcg@20 {rows[name]['ndcg@20']:.4f} "
            f"({rows[name]['seconds']:.0f} s, {rows[name]['epochs']:.0f} epochs)"
        )
    every = [run for runs in folders.values() for run in runs]
    tests = compare_runs(every, ks=(20,)).to_dict() if len(folders) > 1 else {}
    out = HERE / "results" / f"leaderboard-{dataset.name}.json"
    out.parent.mkdir(exist_ok=True)
    document = {
        "data": dataset.name,
        "fingerprint": dataset.fingerprint,
        "mask": args.mask,
        "environment": environment(),
        "models": rows,
        "tests": tests,
    }
    out.write_text(json.dumps(document, indent=1) + "\n")
    print(f"written to {out}")


if __name__ == "__main__":
    main()
