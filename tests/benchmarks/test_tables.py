"""The programs that make the published figures: the search, the leaderboard, the tables."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import yaml
from programs import program

from modalign.data.dataset import Dataset
from modalign.experiments.fit import fit
from modalign.graph.one_sided import TwoWayGraph
from modalign.testing.toy import toy_dataset
from modalign.train.callbacks import JsonLines
from modalign.train.checkpoint import TrainState

SPACE = {"learning_rate": [0.001, 0.01, 0.1], "epochs": [2, 3]}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with a small data set in it."""
    monkeypatch.chdir(tmp_path)
    toy_dataset(seed=1).save(Path("data"))
    Path("space.yaml").write_text(yaml.safe_dump(SPACE))
    return tmp_path


def run(module: ModuleType, place: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    """A program's `main`, writing beside the data set rather than into the checkout."""
    monkeypatch.setattr(module, "HERE", place)
    monkeypatch.setattr(sys, "argv", ["program", *words])
    module.main()


def configure(data: str, epochs: int) -> None:
    """Options of BPR for a leaderboard in the working folder."""
    Path(f"configs/{data}").mkdir(parents=True)
    Path(f"configs/{data}/bpr.yaml").write_text(f"epochs: {epochs}\nbatch_size: 64\n")


def trials(name: str = "bpr") -> list[dict]:
    dataset = Dataset.load(Path("data"))
    path = Path("trials") / dataset.name / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


SEARCH = ("--data", "data", "--model", "bpr", "--space", "space.yaml", "--set", "batch_size=64")


def search_of_ease(*regs: float) -> tuple[str, ...]:
    """What makes the search try these values of EASE's option."""
    Path("space.yaml").write_text(yaml.safe_dump({"reg": list(regs)}))
    return ("--data", "data", "--model", "ease", "--space", "space.yaml")


@pytest.fixture
def tune() -> ModuleType:
    pytest.importorskip("optuna", reason="the search needs the extra `tune`")
    return program("tune")


@pytest.mark.slow
def test_a_search_goes_on_where_it_stopped_and_writes_the_best(
    tune: ModuleType, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Default epochs are many: what the trials are told to do is kept short by the patience.
    run(tune, place, monkeypatch, *SEARCH, "--patience", "1", "--trials", "2")
    before = trials()
    assert before[0]["options"] == {"batch_size": 64}
    run(tune, place, monkeypatch, *SEARCH, "--patience", "1", "--trials", "4")
    after = trials()
    assert after[:2] == before
    assert len(after) == 4
    assert len({json.dumps(one["options"], sort_keys=True) for one in after}) == 4
    assert all("patience" not in one["options"] for one in after)
    best = max(after, key=lambda one: one["recall@20"])
    written = yaml.safe_load(next(place.glob("configs/*/bpr.yaml")).read_text())
    assert written == best["options"]


def test_a_search_never_sees_the_test_part(
    tune: ModuleType, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    honest = tune.fit

    def watched(data: Dataset, *args: object, **options: object) -> object:
        seen.append(data)
        return honest(data, *args, **options)

    monkeypatch.setattr(tune, "fit", watched)
    run(tune, place, monkeypatch, *SEARCH, "--patience", "1", "--trials", "1")
    assert [len(data.test) for data in seen] == [0]
    assert len(Dataset.load(Path("data")).test) > 0


def test_a_model_without_epochs_is_searched_and_its_trials_are_read_again(
    tune: ModuleType, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = search_of_ease(1.0, 10.0, 100.0)
    run(tune, place, monkeypatch, *words, "--trials", "2")
    run(tune, place, monkeypatch, *words, "--trials", "3")
    assert len(trials("ease")) == 3


def test_a_search_counts_what_another_process_tries_beside_it(
    tune: ModuleType, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = search_of_ease(1.0, 10.0, 100.0)
    run(tune, place, monkeypatch, *words, "--trials", "1")
    log = next(place.glob("trials/*/ease.jsonl"))
    honest = tune.tried

    def beside(trial: object, options: dict, *rest: object) -> dict:
        if len(trials("ease")) == 1:
            other = next(reg for reg in (1.0, 10.0, 100.0) if reg != options["reg"])
            line = {"options": {"reg": other}, "recall@20": 0.5, "curve": []}
            log.write_text(log.read_text() + json.dumps(line) + "\n")
        return honest(trial, options, *rest)

    monkeypatch.setattr(tune, "tried", beside)
    run(tune, place, monkeypatch, *words, "--trials", "4", "--worker", "1")
    tried = [one["options"].get("reg", 0.0) for one in trials("ease")]
    assert sorted(tried) == [0.0, 1.0, 10.0, 100.0]


@pytest.mark.slow
def test_a_search_keeps_away_from_what_another_process_is_at(
    tune: ModuleType, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = search_of_ease(1.0, 10.0, 100.0)
    run(tune, place, monkeypatch, *words, "--trials", "1")
    other = next(place.glob("trials/*/ease.jsonl")).with_suffix(".0.json")
    other.write_text(json.dumps({"reg": 10.0}))
    run(tune, place, monkeypatch, *words, "--trials", "4", "--worker", "1")
    assert [one["options"].get("reg") for one in trials("ease")[1:]] in ([1.0, 100.0], [100.0, 1.0])
    other.unlink()
    run(tune, place, monkeypatch, *words, "--trials", "4", "--worker", "1")
    assert trials("ease")[-1]["options"] == {"reg": 10.0}
    assert not list(other.parent.glob("*.json"))


def test_processes_that_search_together_begin_at_different_places(tune: ModuleType) -> None:
    done = [{"options": {}, "recall@20": 0.5}]
    space, defaults = {"reg": list(range(50))}, {"reg": 250.0, "epochs": 1}
    first = [
        tune.proposal(done, {}, space, defaults, 1 + worker * tune.SEEDS, 2)[1]["reg"]
        for worker in range(4)
    ]
    assert len(set(first)) > 2


@pytest.mark.slow
def test_a_search_with_nothing_left_says_so_and_ends(
    tune: ModuleType,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = search_of_ease(1.0, 10.0)
    run(tune, place, monkeypatch, *words, "--trials", "9")
    assert len(trials("ease")) == 3  # the defaults and the two values
    assert "nothing new is left" in capsys.readouterr().out


def stopped_at(tune: ModuleType, earlier: list[dict], values: list[float]) -> int | None:
    """The epoch at which a trial with these values is stopped, after some earlier ones."""
    import optuna

    space = {"learning_rate": [0.001, 0.01]}
    study = tune.new_study(seed=1, warmup=2)
    for record in earlier:
        tune.remember(study, record, space, {"learning_rate": 0.001, "epochs": 50})
    curve = tune.Curve(study.ask())

    class State:
        epoch = 0

    for State.epoch, value in enumerate(values, 1):
        try:
            curve.on_epoch({"valid/recall@20": value}, State)
        except optuna.TrialPruned:
            return State.epoch
    return None


def record(best: float, epochs: int, pruned: bool = False) -> dict:
    curve = [best * epoch / epochs for epoch in range(1, epochs + 1)]
    return {"options": {}, "recall@20": best, "pruned": pruned, "curve": curve}


def test_a_long_trial_is_measured_by_all_finished_ones_at_their_best(tune: ModuleType) -> None:
    # Late in training only the best of the three still ran: the median of it alone is its own.
    earlier = [record(0.10, 5), record(0.12, 5), record(0.30, 20)]
    good = [0.25] * 20
    assert stopped_at(tune, earlier, good) is None
    assert stopped_at(tune, earlier, [0.05] * 20) is not None


def test_a_stopped_trial_is_known_by_where_it_was_stopped(tune: ModuleType) -> None:
    import optuna

    study = tune.new_study(seed=1, warmup=2)
    for one in (record(0.2, 5), record(0.1, 3, pruned=True)):
        tune.remember(
            study, one, {"learning_rate": [0.001]}, {"learning_rate": 0.001, "epochs": 50}
        )
    finished, stopped = study.trials
    assert (finished.state, finished.last_step) == (optuna.trial.TrialState.COMPLETE, 50)
    assert (stopped.state, stopped.last_step) == (optuna.trial.TrialState.PRUNED, 3)
    assert finished.intermediate_values[50] == finished.value == 0.2


@pytest.mark.slow
def test_a_leaderboard_adds_seeds_and_leaves_finished_runs(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    leaderboard = program("leaderboard")
    name = Dataset.load(Path("data")).name
    configure(name, epochs=2)
    words = ("--data", "data", "--models", "popularity,bpr", "--runs", "runs")
    run(leaderboard, place, monkeypatch, *words, "--seeds", "1")
    first = Path(f"runs/{name}/bpr-1/results.json")
    before = first.stat().st_mtime_ns
    run(leaderboard, place, monkeypatch, *words, "--seeds", "1,2")
    assert first.stat().st_mtime_ns == before
    document = json.loads(Path(f"results/leaderboard-{name}.json").read_text())
    rows = document["models"]
    seeds = {model: row["seeds"] for model, row in rows.items()}
    assert seeds == {"popularity": [1], "bpr": [1, 2]}
    files = [Path(f"runs/{name}/bpr-{seed}/results.json") for seed in (1, 2)]
    found = [json.loads(file.read_text()) for file in files]
    assert [one["epochs"] for one in found] == [2, 2]
    values = [one["test"]["recall@20"] for one in found]
    assert rows["bpr"]["recall@20"] == pytest.approx(sum(values) / 2)
    assert rows["bpr"]["recall@20 deviation"] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
    assert document["tests"]
    capsys.readouterr()
    run(leaderboard, place, monkeypatch, *words, "--seeds", "1,2,3", "--finished")
    left_out = f"bpr: seed 3 is left out, no finished run in runs/{name}/bpr-3"
    assert capsys.readouterr().err.splitlines() == [left_out]
    assert json.loads(Path(f"results/leaderboard-{name}.json").read_text())["models"] == rows


def test_a_leaderboard_goes_on_with_an_interrupted_run(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = Dataset.load(Path("data"))
    configure(dataset.name, epochs=4)
    folder = Path(f"runs/{dataset.name}/bpr-1")

    class Interrupts(JsonLines):
        def on_epoch(self, record: Mapping[str, float], state: TrainState) -> None:
            if state.epoch == 3:
                raise KeyboardInterrupt

    given = {"epochs": 4, "batch_size": 64}
    with pytest.raises(KeyboardInterrupt):
        fit(
            dataset, "bpr", out=folder, mask="train", callbacks=[Interrupts(place / "log")], **given
        )
    assert not (folder / "results.json").exists()
    words = ("--data", "data", "--models", "bpr", "--runs", "runs", "--seeds", "1")
    run(program("leaderboard"), place, monkeypatch, *words)
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 4
    assert json.loads((folder / "results.json").read_text())["epochs"] == 4


@pytest.mark.slow
def test_a_leaderboard_keeps_what_was_measured_before(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaderboard = program("leaderboard")
    name = Dataset.load(Path("data")).name
    configure(name, epochs=2)

    def table(models: str, *words: str) -> dict:
        given = ("--data", "data", "--runs", "runs", "--models", models, *words)
        run(leaderboard, place, monkeypatch, *given)
        found: dict = json.loads(Path(f"results/leaderboard-{name}.json").read_text())
        return found

    def names(document: dict) -> set[tuple[str, str]]:
        return {(one["first"], one["second"]) for one in document["tests"]["pairs"]}

    first = table("popularity,bpr", "--seeds", "1")
    # Others: the line and the test stay as they are, but for a correction over both tests.
    second = table("ease,itemknn")
    assert list(second["models"]) == ["popularity", "bpr", "ease", "itemknn"]
    assert second["models"]["bpr"] == first["models"]["bpr"]
    assert names(second) == {("popularity-1", "bpr-1"), ("ease-1", "itemknn-1")}
    assert second["tests"]["runs"] == ["popularity-1", "bpr-1", "ease-1", "itemknn-1"]
    pair = [one for one in second["tests"]["pairs"] if one["metric"] == "recall@20"]
    p = sorted(one["t_test"] for one in pair)
    assert sorted(one["corrected"] for one in pair) == [min(1, 2 * p[0]), max(2 * p[0], p[1])]
    # Measured again and the same: tests against those that were not stay, its own are new.
    again = table("bpr,itemknn", "--seeds", "1")
    assert names(again) == {*names(second), ("bpr-1", "itemknn-1")}
    assert 2 * len(again["tests"]["pairs"]) == 3 * len(second["tests"]["pairs"])
    # A seed of its own takes a line's place, or joins it; the line's old test goes either way.
    third = table("bpr", "--seeds", "2", "--add-seeds")
    assert third["models"]["bpr"]["seeds"] == [1, 2]
    values = [one["recall@20"] for one in third["models"]["bpr"]["runs"]]
    assert values[0] == first["models"]["bpr"]["recall@20"]
    assert third["models"]["bpr"]["recall@20"] == pytest.approx(sum(values) / 2)
    assert names(third) == {("ease-1", "itemknn-1")}
    assert table("bpr", "--seeds", "2")["models"]["bpr"]["seeds"] == [2]
    # All of them at hand: nothing of the earlier table is left in the new one.
    whole = table("popularity,bpr,ease,itemknn", "--seeds", "1,2")
    Path(f"results/leaderboard-{name}.json").unlink()
    assert table("popularity,bpr,ease,itemknn", "--seeds", "1,2") == whole
    # Another mask is another table.
    assert list(table("ease", "--mask", "strict", "--runs", "runs-strict")["models"]) == ["ease"]


def test_joined_tests_are_corrected_together_between_seeds_too() -> None:
    def table(*tests: dict) -> dict:
        runs = list(dict.fromkeys(run for one in tests for run in (one["first"], one["second"])))
        metrics = {run: {"recall@20": 0.5} for run in runs}
        return {
            "models": {run.split()[0]: {} for run in runs},
            "tests": {"runs": runs, "metrics": metrics, "pairs": list(tests), "level": 0.05},
        }

    def test(first: str, second: str, **p: float) -> dict:
        names = {"first": f"{first} (2 seeds)", "second": f"{second} (2 seeds)"}
        return {"metric": "recall@20", **names, "t_test": 0.5, **p}

    leaderboard = program("leaderboard")
    before_there_was_one = test("a", "b")
    old = table(before_there_was_one, test("c", "d", between_seeds=0.03))
    new = table(test("e", "f", between_seeds=0.02))
    pairs = leaderboard.tests_of(new, old, list("abcdef"))["pairs"]
    assert [one["corrected_between_seeds"] for one in pairs] == [None, 0.04, 0.04]


def test_lines_written_before_runs_were_kept_are_joined_where_they_have_one_seed() -> None:
    leaderboard = program("leaderboard")
    keys = (*leaderboard.METRICS, *leaderboard.COSTS)
    run = {"seed": 2, **dict.fromkeys(keys, 0.3)}
    new = {"fingerprint": "f", "mask": "train", "tests": {}}
    new["models"] = {"bpr": leaderboard.row({}, [run])}
    for seeds, expected in (([1], [1, 2]), ([1, 3], [2])):
        line = {"options": {}, "seeds": seeds, **dict.fromkeys(keys, 0.1)}
        old = {**new, "models": {"bpr": line}}
        assert leaderboard.joined(new, old, add_seeds=True)["models"]["bpr"]["seeds"] == expected
    # Other options are another model.
    old = {**new, "models": {"bpr": {"options": {"reg": 1}, "seeds": [1]}}}
    assert leaderboard.joined(new, old, add_seeds=True)["models"]["bpr"]["seeds"] == [2]


def test_tables_mark_the_best_of_each_data_set(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("results").mkdir()

    def row(recall: float, ndcg: float, seeds: int) -> dict:
        return {
            "recall@20": recall,
            "ndcg@20": ndcg,
            "recall@20 deviation": 0.001,
            "seeds": list(range(seeds)),
        }

    models = {"ease": row(0.3, 0.25, 1), "mmssl": row(0.31, 0.24, 5)}
    Path("results/leaderboard-bench-ml.json").write_text(json.dumps({"models": models}))
    tables = program("tables")
    run(tables, place, monkeypatch)
    shown = capsys.readouterr().out.splitlines()
    assert "| ease | 0.3000 / **0.2500** |" in shown
    assert "| mmssl | **0.3100** ± 0.0010 / 0.2400 |" in shown


def test_mmssl_graphs_counts_the_edges_that_are_held_out():
    graphs = program("mmssl_graphs")
    held = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]]).bool()
    # Half of two items, the one item there is; nothing held out; no item.
    chosen = torch.tensor([[0, 1], [3, -1], [0, 1], [-1, -1]], dtype=torch.int32)
    assert graphs.share_right(chosen, held) == 0.75
    seen = TwoWayGraph(torch.tensor([0, 1]), torch.tensor([2, 0]), 2, 4).seen
    best = graphs.by_popularity(np.array([3, 1, 9, 2]), 2, seen, 2)
    assert best.tolist() == [[0, 3], [2, 3]]
