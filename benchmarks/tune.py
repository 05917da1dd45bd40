"""Search a model's options on validation; the test part is removed from the data first.

    pip install -e .[tune]
    python benchmarks/tune.py --data data/bench-ml --model lightgcn --trials 30

The space, `benchmarks/spaces/MODEL.yaml`, maps an option to a list of values. The defaults are the
first trial; Optuna proposes the others (a seeded tree-structured Parzen estimator). A trial that is
below the median of the earlier trials after `--warmup` epochs is stopped. Each trial is a line of
`benchmarks/trials/DATA/MODEL.jsonl`; trials that are there already count and are not repeated. With
`--worker 1` a second process takes part in the search and avoids the options that the first one is
trying (`MODEL.0.json` beside the log; a killed process leaves that file until it is started again).
The best options are written to `benchmarks/configs/DATA/MODEL.yaml`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import optuna
import yaml
from filelock import FileLock

from modalign.core import settings
from modalign.core.files import write_aside
from modalign.data.dataset import Dataset
from modalign.data.interactions import Interactions
from modalign.experiments.fit import fit
from modalign.models import _registry as registry
from modalign.train.checkpoint import TrainState

HERE = Path(__file__).parent
METRIC = "recall@20"
EXHAUSTED = 200
SEEDS = 1000
"""From one worker's first seed to the next one's."""


class Curve:
    """Records the best validation value after each epoch, and stops a trial that is too low."""

    def __init__(self, trial: optuna.Trial) -> None:
        self.trial = trial
        self.values: list[float] = []

    def on_start(self, state: TrainState, epochs: int) -> None:
        """Do nothing."""

    def on_epoch(self, record: Mapping[str, float], state: TrainState) -> None:
        """Record the value; stop the trial if Optuna says so."""
        value = max(record.get(f"valid/{METRIC}", 0.0), *self.values[-1:], 0.0)
        self.values.append(value)
        self.trial.report(value, state.epoch)
        if self.trial.should_prune():
            raise optuna.TrialPruned

    def on_end(self, state: TrainState) -> None:
        """Do nothing: the search writes the record."""


def known(options: dict, space: dict[str, list], defaults: Mapping) -> dict:
    """Parameters of an earlier trial for Optuna: defaults written out, other options left out."""
    return {name: options.get(name, defaults[name]) for name in space}


def new_study(seed: int, warmup: int) -> optuna.Study:
    """A search without trials; no trial is stopped in its first `warmup` epochs."""
    return optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=8),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=3, n_warmup_steps=warmup),
    )


def remember(study: optuna.Study, record: dict, space: dict[str, list], defaults: Mapping) -> None:
    """Give a study a finished trial; one with values outside the space is left out."""
    params = known(record["options"], space, defaults)
    if any(params[name] not in values for name, values in space.items()):
        return
    distributions = {
        name: optuna.distributions.CategoricalDistribution(values) for name, values in space.items()
    }
    values = record.get("curve", [])
    pruned = record.get("pruned", False)
    if values and not pruned:
        # Filled up with its best value, so that a longer trial is compared with all finished
        # trials, not only with the few that took as long.
        values = values + values[-1:] * (defaults["epochs"] - len(values))
    curve = dict(enumerate(values, 1))
    study.add_trial(
        optuna.trial.create_trial(
            state=optuna.trial.TrialState.PRUNED if pruned else optuna.trial.TrialState.COMPLETE,
            params=params,
            distributions=distributions,
            intermediate_values=curve,
            value=record[METRIC],
        )
    )


def logged(log: Path) -> list[dict]:
    """The trials so far."""
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def under_way(log: Path, mine: Path, done: Sequence[dict]) -> list[dict]:
    """The trials of other processes in progress, with the value of the worst finished trial."""
    lie = {METRIC: min((one[METRIC] for one in done), default=0.0), "pruned": True}
    others = sorted(set(log.parent.glob(f"{log.stem}.*.json")) - {mine})
    return [{"options": json.loads(path.read_text()), **lie} for path in others]


def proposal(
    done: Sequence[dict],
    fixed: dict,
    space: dict[str, list],
    defaults: Mapping,
    seed: int,
    warmup: int,
) -> tuple[optuna.Trial, dict] | None:
    """The next trial and its options, none of those done; None where nothing new is proposed.

    The study is rebuilt from the finished trials each time, so that a resumed search continues as
    an uninterrupted one would, and parallel searches learn from each other. The first trial is that
    of the defaults.
    """
    # The number of trials is part of the seed: a resumed search does not repeat its proposals.
    study = new_study(seed + len(done), warmup)
    for record in done:
        remember(study, record, space, defaults)
    for _ in range(EXHAUSTED):
        trial = study.ask()
        if not done:
            return trial, fixed
        options = fixed | {name: trial.suggest_categorical(name, space[name]) for name in space}
        seen = next((one for one in done if one["options"] == options), None)
        if seen is None:
            return trial, options
        # Reported again, so that the search goes elsewhere; it does not count as a trial.
        study.tell(trial, seen[METRIC])
    return None


def tried(
    trial: optuna.Trial, options: dict, dataset: Dataset, model: str, seed: int, briefly: dict
) -> dict:
    """Run one trial and return its record: its best values, or those when it was stopped.

    Args:
        trial: Optuna's trial.
        options: options of the model.
        dataset: data without a test part.
        model: name of the model.
        seed: seed of the training.
        briefly: options that shorten the search and are not recorded.
    """
    began = time.monotonic()
    curve = Curve(trial)
    given = {**options, **briefly}
    record: dict = {"options": options}
    try:
        fitted = fit(dataset, model, seed=seed, mask="train", ks=(20,), callbacks=[curve], **given)
    except optuna.TrialPruned:
        record |= {METRIC: curve.values[-1], "pruned": True, "epochs": len(curve.values)}
    else:
        record |= {name: fitted.results["valid"][name] for name in (METRIC, "ndcg@20")}
        record |= {name: fitted.results[name] for name in ("best_epoch", "epochs")}
    return record | {
        "seconds": round(time.monotonic() - began, 1),
        "curve": [round(value, 6) for value in curve.values],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--space", type=Path)
    parser.add_argument("--trials", type=int, default=30, help="number, including earlier ones")
    parser.add_argument("--warmup", type=int, default=10, help="epochs before a trial is stopped")
    parser.add_argument("--patience", type=int, help="patience during the search; not recorded")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--worker",
        type=int,
        default=0,
        help="a different number for each process that searches at the same time",
    )
    parser.add_argument("--set", action="append", default=[], help="a fixed option, key=value")
    args = parser.parse_args()
    dataset = Dataset.load(args.data)
    dataset = replace(dataset, test=Interactions.empty())
    # Beside the results, not in the runs: a search takes hours and may continue elsewhere.
    log = HERE / "trials" / dataset.name / f"{args.model}.jsonl"
    log.parent.mkdir(parents=True, exist_ok=True)
    briefly = {} if args.patience is None else {"patience": args.patience}
    fixed = settings.parse_assignments(args.set)
    path = args.space or HERE / "spaces" / f"{args.model}.yaml"
    space = yaml.safe_load(path.read_text())
    defaults = registry.get(args.model).config().model_dump()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    seed = args.seed + SEEDS * args.worker
    mine = log.with_suffix(f".{args.worker}.json")
    lock = FileLock(log.with_suffix(".lock"))
    while True:
        # Locked, so that two processes do not propose the same options. The log is read again
        # for each trial, because another process may have added some.
        with lock:
            done = logged(log)
            if len(done) >= args.trials:
                break
            known = [*done, *under_way(log, mine, done)]
            proposed = proposal(known, fixed, space, defaults, seed, args.warmup)
            if proposed is None:
                print(f"{EXHAUSTED} proposals in a row were tried before; nothing new is left")
                break
            with write_aside(mine) as aside:
                aside.write_text(json.dumps(proposed[1]))
        try:
            record = tried(*proposed, dataset, args.model, args.seed, briefly)
            with log.open("a") as file:
                file.write(json.dumps(record) + "\n")
        finally:
            with lock:
                mine.unlink(missing_ok=True)
        shown = {name: value for name, value in record.items() if name != "curve"}
        print(len(logged(log)), json.dumps(shown), flush=True)
    best = max(done, key=lambda one: one[METRIC])
    path = HERE / "configs" / dataset.name / f"{args.model}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(best["options"], sort_keys=True))
    print(f"best on validation: {best['options']}, {METRIC} {best[METRIC]:.4f}\nwritten to {path}")


if __name__ == "__main__":
    main()
