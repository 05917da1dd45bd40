"""Search a model's options on validation alone; the test part is taken out of the data first.

    python benchmarks/tune.py --data data/bench-ml --model lightgcn --trials 20

The space, `benchmarks/spaces/MODEL.yaml`, maps an option to a list of values. Trials are drawn
without repetition by a seeded generator, after the defaults; each is a line of
`runs/tune/DATA/MODEL.jsonl`, and trials that stand there already are not run again. The best one
is written to `benchmarks/configs/DATA/MODEL.yaml`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from dataclasses import replace
from pathlib import Path

import yaml

from modalign import seeds, settings
from modalign.data.dataset import Dataset
from modalign.data.interactions import Interactions
from modalign.experiment import fit

HERE = Path(__file__).parent


def trials_of(space: dict[str, list], n: int, seed: int) -> list[dict]:
    """The defaults, then up to `n` combinations in a drawn order."""
    every = [dict(zip(space, v, strict=True)) for v in itertools.product(*space.values())]
    order = seeds.numpy_generator(seed, "tune").permutation(len(every))
    return [{}, *(every[i] for i in order[:n])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--space", type=Path)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], help="fixed options, key=value")
    args = parser.parse_args()
    dataset = Dataset.load(args.data)
    dataset = replace(dataset, test=Interactions.empty())
    log = Path("runs/tune") / dataset.name / f"{args.model}.jsonl"
    log.parent.mkdir(parents=True, exist_ok=True)
    done = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    fixed = settings.parse_assignments(args.set)
    space = args.space or HERE / "spaces" / f"{args.model}.yaml"
    for options in trials_of(yaml.safe_load(space.read_text()), args.trials, args.seed):
        options = {**fixed, **options}
        if any(one["options"] == options for one in done):
            continue
        began = time.monotonic()
        fitted = fit(dataset, args.model, seed=args.seed, mask="train", ks=(20,), **options)
        record = {
            "options": options,
            "recall@20": fitted.results["valid"]["recall@20"],
            "ndcg@20": fitted.results["valid"]["ndcg@20"],
            "best_epoch": fitted.results["best_epoch"],
            "epochs": fitted.results["epochs"],
            "seconds": round(time.monotonic() - began, 1),
        }
        with log.open("a") as file:
            file.write(json.dumps(record) + "\n")
        done.append(record)
        print(json.dumps(record), flush=True)
    best = max(done, key=lambda one: one["recall@20"])
    path = HERE / "configs" / dataset.name / f"{args.model}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(best["options"], sort_keys=True))
    print(f"best on validation: {best}\nwritten to {path}")


if __name__ == "__main__":
    main()
