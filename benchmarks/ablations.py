"""The main ablations of MMSSL, BANDVAE and RecGOAT on one data set, with paired tests.

    python benchmarks/ablations.py --data data/shop --model mmssl --seeds 1,2,3,4,5

Options come from `benchmarks/configs/` (found by a search) and from `--set`; finished runs are kept
when the command is repeated. Results: `benchmarks/results/ablation-DATA-MODEL.json`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from _common import tuned, write

from modalign.core import settings
from modalign.data.dataset import Dataset
from modalign.experiments.run_folder import environment
from modalign.sweeps.ablation import ablate

HERE = Path(__file__).parent
VARIANTS = {
    "mmssl": "without-asl,without-cl,without-gt,gae,without-views",
    "bandvae": "norm-plan,diag-plan,only-regulariser,only-mapping,without-transfer",
    "recgoat": "sum,without-cmcl,without-w1,without-both,without-preference",
}
METRICS = ("recall@20", "ndcg@20")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", choices=list(VARIANTS), required=True)
    parser.add_argument("--variants", help="comma-separated; default: the main ones")
    parser.add_argument("--seeds", default="1,2,3,4,5")
    parser.add_argument("--set", action="append", default=[], help="an option as key=value")
    parser.add_argument("--mask", default="train")
    parser.add_argument("--runs", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--workers", type=int, default=1, help="processes to train in")
    args = parser.parse_args()
    dataset = Dataset.load(args.data)
    options = tuned(HERE, dataset.name, args.model) | settings.parse_assignments(args.set)
    found = ablate(
        dataset,
        args.model,
        args.runs / f"{dataset.name}-{args.model}",
        (args.variants or VARIANTS[args.model]).split(","),
        seeds=[int(one) for one in args.seeds.split(",")],
        mask=args.mask,
        workers=args.workers,
        progress=lambda progress: print(progress.done, "of", progress.total, flush=True),
        **options,
    )
    rows: dict[str, dict[str, Any]] = {}
    for row in found.rows:
        rows[row.name] = {"seeds": list(row.seeds)}
        for metric in METRICS:
            rows[row.name][metric] = row.test[metric].mean
            rows[row.name][f"{metric} deviation"] = row.test[metric].std
        line = " / ".join(f"{rows[row.name][metric]:.4f}" for metric in METRICS)
        line = f"{row.name:24s} {line} +- {rows[row.name]['recall@20 deviation']:.4f}"
        for metric in METRICS:
            test = found.test(row.name, metric)
            if test is not None:
                rows[row.name][f"{metric} of the full model less this"] = test.difference
                rows[row.name][f"{metric} p"] = test.corrected
                rows[row.name][f"{metric} p between seeds"] = test.corrected_between_seeds
                line += f"  {metric} {-test.difference:+.4f} p {test.corrected:.2g}"
                if test.corrected_between_seeds is not None:
                    line += f" ({test.corrected_between_seeds:.2g} between seeds)"
        print(line)
    out = HERE / "results" / f"ablation-{dataset.name}-{args.model}.json"
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
