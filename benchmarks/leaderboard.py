"""All models on one data set, several seeds, paired tests: the tables of the README.

    python benchmarks/leaderboard.py --data data/bench-ml --models all --seeds 1,2,3,4,5

Options of each model come from `benchmarks/configs/DATA/MODEL.yaml` if that exists (found by
`benchmarks/tune.py` on validation), otherwise they are the defaults. Finished runs are not
repeated. Writes `benchmarks/results/leaderboard-DATA.json`. Models that are in that file already,
measured on the same data with the same mask, stay in it with their tests. A model that is named
again is replaced; it keeps its tests if its results are the same. With `--add-seeds` it gets the
new seeds in addition to its own (its tests are then of the new runs only).
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from collections.abc import Sequence
from pathlib import Path

from _common import over_seeds, tuned, write
from rich.console import Console

from modalign.data.dataset import Dataset
from modalign.errors import RunError
from modalign.evaluate.significance import holm, holm_of_known
from modalign.experiments.fit import fit
from modalign.experiments.run_folder import environment, read_run
from modalign.models import _registry as registry
from modalign.report.side_by_side import compare_runs
from modalign.train.callbacks import ProgressBar

HERE = Path(__file__).parent
CLOSED = ("popularity", "itemknn", "ease")
METRICS = ("recall@10", "recall@20", "ndcg@10", "ndcg@20")
COSTS = ("valid recall@20", "seconds", "epochs")


def measured(folder: Path) -> dict:
    """The part of a run's results that the table keeps."""
    found = json.loads((folder / "results.json").read_text())
    return {
        "seed": found["seed"],
        **{metric: found["test"][metric] for metric in METRICS},
        "valid recall@20": found["valid"]["recall@20"],
        "seconds": found["seconds"],
        "epochs": found["epochs"],
    }


def row(options: dict, runs: Sequence[dict]) -> dict:
    """A model's line of the table: means and deviations over its runs, and the runs."""
    runs = sorted(runs, key=lambda one: one["seed"])
    made: dict = {"options": options, "seeds": [one["seed"] for one in runs]}
    made |= over_seeds(runs, METRICS)
    made |= {cost: statistics.fmean(one[cost] for one in runs) for cost in COSTS}
    return made | {"runs": runs}


def runs_of(line: dict) -> list[dict]:
    """The runs behind a line; in old tables, only of lines with a single run."""
    if "runs" in line:
        return list(line["runs"])
    if len(line["seeds"]) > 1:
        return []
    return [{"seed": line["seeds"][0], **{key: line[key] for key in (*METRICS, *COSTS)}}]


def joined(document: dict, earlier: dict, add_seeds: bool) -> dict:
    """The new table, and the models of an earlier one of the same data and mask that it lacks.

    A test is kept if its models were not measured again, or have the same results to the last
    digit. Holm's correction and the winners are computed over all tests together.

    Args:
        document: the new table.
        earlier: the earlier table.
        add_seeds: keep the earlier seeds of a model that was measured again.
    """
    if any(earlier[key] != document[key] for key in ("fingerprint", "mask")):
        return document
    new, old = document["models"], earlier["models"]
    models = {name: new.get(name, line) for name, line in {**old, **new}.items()}
    for name in new if add_seeds else ():
        if name in old and old[name]["options"] == new[name]["options"]:
            seeds = {one["seed"]: one for one in (*runs_of(old[name]), *runs_of(new[name]))}
            models[name] = row(new[name]["options"], list(seeds.values()))
    return document | {"models": models, "tests": tests_of(document, earlier, list(models))}


def tests_of(document: dict, earlier: dict, order: list[str]) -> dict:
    """The tests of two tables; of the earlier one only those that `joined` keeps.

    Args:
        document: the new table.
        earlier: the earlier table.
        order: models in the order of the joined table.
    """
    new, old = document["tests"], earlier["tests"]
    if not old:
        return new
    if not new:
        new = {**old, "runs": [], "metrics": {}, "pairs": []}
    others = [run for run in old["runs"] if model_of(run) not in document["models"]]
    again = [run for run in old["runs"] if repeated(model_of(run), document, earlier)]
    runs = sorted([*others, *new["runs"]], key=lambda run: order.index(model_of(run)))
    metrics = {run: {**old["metrics"], **new["metrics"]}[run] for run in runs}
    pairs = [
        pair
        for pair in old["pairs"]
        if {pair["first"], pair["second"]} <= {*others, *again}
        and not {pair["first"], pair["second"]} <= set(again)
    ]
    pairs += new["pairs"]
    winner = {}
    for metric in dict.fromkeys(pair["metric"] for pair in pairs):
        family = [pair for pair in pairs if pair["metric"] == metric]
        raised = holm([pair["t_test"] for pair in family])
        between = holm_of_known([pair.get("between_seeds") for pair in family])
        for pair, p, q in zip(family, raised, between, strict=True):
            pair["corrected"], pair["corrected_between_seeds"] = float(p), q
            pair["significant"] = bool(p < new["level"])
        best = max(runs, key=lambda run: metrics[run][metric])
        beaten = [p["significant"] for p in family if best in (p["first"], p["second"])]
        winner[metric] = best if beaten == [True] * (len(runs) - 1) else None
    return {**new, "runs": runs, "metrics": metrics, "pairs": pairs, "winner": winner}


def repeated(model: str, document: dict, earlier: dict) -> bool:
    """Whether a model was measured again with the same results to the last digit."""
    if model not in document["models"] or model not in earlier["models"]:
        return False
    keys = "options", "seeds", *METRICS, *(f"{metric} deviation" for metric in METRICS)
    line, old = document["models"][model], earlier["models"][model]
    return all(line[key] == old[key] for key in keys)


def model_of(run: str) -> str:
    """The model of a run's name in a comparison, "MODEL-1" or "MODEL (5 seeds)"."""
    return re.sub(r"( \(\d+ seeds\)|-\d+)$", "", run)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", default="all")
    parser.add_argument("--seeds", default="1,2,3,4,5")
    parser.add_argument("--mask", default="train")
    parser.add_argument("--runs", type=Path, default=Path("runs/leaderboard"))
    parser.add_argument("--add-seeds", action="store_true", help="keep the other seeds of a model")
    parser.add_argument("--finished", action="store_true", help="use finished runs, train none")
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
        options[name] = tuned(HERE, dataset.name, name)
        seeds = [1] if name in CLOSED else [int(s) for s in args.seeds.split(",")]
        for seed in seeds:
            folder = args.runs / dataset.name / f"{name}-{seed}"
            folders.setdefault(name, []).append(folder)
            try:
                read_run(folder)
            except RunError:
                if args.finished:
                    folders[name].remove(folder)
                    console.print(
                        f"{name}: seed {seed} is left out, no finished run in {folder}",
                        soft_wrap=True,
                    )
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
        rows[name] = row(options[name], [measured(run) for run in runs])
        print(
            f"{name:12s} recall@20 {rows[name]['recall@20']:.4f} "
            f"+- {rows[name]['recall@20 deviation']:.4f}  ndcg@20 {rows[name]['ndcg@20']:.4f} "
            f"({rows[name]['seconds']:.0f} s, {rows[name]['epochs']:.0f} epochs)"
        )
    every = [run for runs in folders.values() for run in runs]
    tests = compare_runs(every, ks=(20,)).to_dict() if len(folders) > 1 else {}
    out = HERE / "results" / f"leaderboard-{dataset.name}.json"
    document = {
        "data": dataset.name,
        "fingerprint": dataset.fingerprint,
        "mask": args.mask,
        "environment": environment(),
        "models": rows,
        "tests": tests,
    }
    if out.exists():
        document = joined(document, json.loads(out.read_text()), args.add_seeds)
    write(out, document)
    kept = [name for name in document["models"] if name not in rows]
    print(f"written to {out}" + (f"; unchanged: {', '.join(kept)}" if kept else ""))


if __name__ == "__main__":
    main()
