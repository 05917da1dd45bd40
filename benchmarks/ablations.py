"""The main ablations of the aligned models on one data set, with paired tests over users.

    python benchmarks/ablations.py --data data/shop --model mmssl --seeds 1,2,3,4,5
    python benchmarks/ablations.py --data data/shop --model cm3 --defaults --seeds 1,2,3

Options come from `benchmarks/configs/` (found by a search) and from `--set`; with `--defaults`
only from `--set`, and the variants are the controls of the mechanism that gives the model its
name. Finished runs are kept when the command is repeated. Results, with the vital signs of each
row: `benchmarks/results/ablation-DATA-MODEL.json`, with `--defaults` `mechanism-DATA-MODEL.json`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import fmean
from typing import Any

from _common import tuned, write

from modalign.core import settings
from modalign.data.dataset import Dataset
from modalign.experiments.run_folder import environment
from modalign.sweeps.ablation import ablate

HERE = Path(__file__).parent
VARIANTS = {
    "cm3": "without-fusion,average-fusion,linear-fusion,standard-uniformity,similarity-raw",
    "mmssl": "without-asl,without-cl,without-gt,gae,without-views",
    "bandvae": "norm-plan,diag-plan,only-regulariser,only-mapping,without-transfer",
    "recgoat": "sum,without-cmcl,without-w1,without-both,without-preference",
    "lightgcn-ssl": "without-asl,backbone",
}
CONTROLS = {
    "cm3": "standard-uniformity,similarity-raw,similarity-learned",
    "mmssl": "without-views,without-cl,without-asl,without-own-items,plain-attention,unit-rows",
    "recgoat": "sum,without-plan,identity-plan,without-delta",
    "bandvae": "uniform-plan,printed-plan,without-transfer",
    "lightgcn-ssl": "without-asl,backbone",
}
METRICS = ("recall@20", "ndcg@20")


def means(records: list[dict[str, float]]) -> dict[str, float]:
    """The mean of each number that all records have."""
    common = [name for name in records[0] if all(name in one for one in records)]
    return {name: fmean(one[name] for one in records) for name in common}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", choices=list(CONTROLS), required=True)
    parser.add_argument("--variants", help="comma-separated; default: the main ones")
    parser.add_argument("--defaults", action="store_true", help="ignore benchmarks/configs")
    parser.add_argument("--seeds", default="1,2,3,4,5")
    parser.add_argument("--set", action="append", default=[], help="an option as key=value")
    parser.add_argument("--mask", default="train")
    parser.add_argument("--runs", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--workers", type=int, default=1, help="processes to train in")
    args = parser.parse_args()
    dataset = Dataset.load(args.data)
    found = {} if args.defaults else tuned(HERE, dataset.name, args.model)
    options = found | settings.parse_assignments(args.set)
    kind, listed = ("mechanism", CONTROLS) if args.defaults else ("ablation", VARIANTS)
    table = ablate(
        dataset,
        args.model,
        args.runs / f"{kind}-{dataset.name}-{args.model}",
        (args.variants or listed[args.model]).split(","),
        seeds=[int(one) for one in args.seeds.split(",")],
        mask=args.mask,
        workers=args.workers,
        progress=lambda progress: print(progress.done, "of", progress.total, flush=True),
        **options,
    )
    rows: dict[str, dict[str, Any]] = {}
    for row in table.rows:
        made = [run.results for run in table.sweep.runs if run.name == row.name and run.results]
        rows[row.name] = {
            "seeds": list(row.seeds),
            "valid recall@20": fmean(one["valid"]["recall@20"] for one in made),
            "seconds": fmean(one["seconds"] for one in made),
            "vital signs": means([one.get("vital_signs", {}) for one in made]),
        }
        for metric in METRICS:
            rows[row.name][metric] = row.test[metric].mean
            rows[row.name][f"{metric} deviation"] = row.test[metric].std
        line = " / ".join(f"{rows[row.name][metric]:.4f}" for metric in METRICS)
        deviation = rows[row.name]["recall@20 deviation"]
        spread = "" if deviation is None else f" +- {deviation:.4f}"
        line = f"{row.name:24s} {line}{spread}"
        for metric in METRICS:
            test = table.test(row.name, metric)
            if test is not None:
                rows[row.name][f"{metric} of the full model less this"] = test.difference
                rows[row.name][f"{metric} p"] = test.corrected
                rows[row.name][f"{metric} p between seeds"] = test.corrected_between_seeds
                line += f"  {metric} {-test.difference:+.4f} p {test.corrected:.2g}"
                if test.corrected_between_seeds is not None:
                    line += f" ({test.corrected_between_seeds:.2g} between seeds)"
        print(line)
    out = HERE / "results" / f"{kind}-{dataset.name}-{args.model}.json"
    document = {
        "data": dataset.name,
        "fingerprint": dataset.fingerprint,
        "model": args.model,
        "mask": args.mask,
        "options": options,
        "environment": environment(),
        "rows": rows,
    }
    write(out, document)
    print(f"written to {out}")


if __name__ == "__main__":
    main()
