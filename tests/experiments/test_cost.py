"""What a run costs: counted against the published table, timed by a clock of our own."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from modalign.core.modality import Modality
from modalign.core.view import TrainView
from modalign.errors import ConfigError, ModalignError, RunError
from modalign.experiments import cost as cost_of_runs
from modalign.experiments.cost import (
    Asker,
    Latency,
    ParameterCount,
    Profile,
    RunCost,
    count_parameters,
    latency,
    peak_mib,
    profile,
)
from modalign.experiments.fit import fit
from modalign.models.ease import EASE, EASEConfig
from modalign.models.mlprec import MLPRec, MLPRecConfig
from modalign.models.mmrec import MMRec, MMRecConfig
from modalign.testing.toy import tiny_view, toy_dataset

# Users, items, widths of the features, and the published counts of teacher and student.
NETFLIX = (43_739, 17_239, (512, 768), 29.95e6, 3.91e6)
ELECTRONICS = (41_691, 21_479, (4096, 384), 104.60e6, 4.05e6)
DATASET = toy_dataset()
linux = pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")


def catalogue(n_users: int, n_items: int, widths: tuple[int, ...]) -> TrainView:
    """A catalogue of that size; its features are pages that nobody has written to."""
    nothing = torch.empty(0, dtype=torch.int64)
    there = np.ones(n_items, bool)
    found = {
        f"m{width}": Modality(f"m{width}", np.zeros((n_items, width), np.float32), there)
        for width in widths
    }
    return TrainView(n_users, n_items, nothing, nothing, found)


def cost(anew: float, tables: float, parameters: int, mib: float | None = 8.0) -> RunCost:
    def times(p50: float) -> Latency:
        return Latency(p50, 2 * p50, p50, 200)

    return RunCost(
        "run", "model", times(anew), times(10 * anew), times(tables), times(10 * tables),
        ParameterCount(parameters, 2 * parameters), mib, mib,
    )  # fmt: skip


# ------------------------------------------------------------------ parameters


@pytest.mark.slow
@pytest.mark.parametrize(("users", "items", "widths", "teacher", "student"), [NETFLIX, ELECTRONICS])
def test_counts_reproduce_the_published_table(users, items, widths, teacher, student):
    view = catalogue(users, items, widths)
    ours = count_parameters(MMRec(MMRecConfig(embedding_size=64, missing="zero"), view))
    ids = 64 * (users + items)
    assert ours.trainable == ids + sum(64 * width + 64 for width in widths)
    assert ours.with_features == ours.trainable + items * sum(widths)
    # The paper's teacher has one more table of the size of the ids.
    assert ours.with_features + ids == pytest.approx(teacher, abs=5e3)
    small = count_parameters(MLPRec(MLPRecConfig(embedding_size=64), view))
    assert small.trainable == small.with_features == ids + 2 * (64 * 64 + 64)
    assert small.trainable == pytest.approx(student, abs=5e3)


def test_counts_are_the_numbers_written_down():
    published = {
        size[:2]: 2 * 64 * (size[0] + size[1]) + sum(size[1] * w + 64 * w + 64 for w in size[2])
        for size in (NETFLIX, ELECTRONICS)
    }
    assert list(published.values()) == [29_953_152, 104_598_528]
    view = catalogue(*NETFLIX[:3])
    assert count_parameters(MLPRec(MLPRecConfig(), view)).trainable == 3_910_912


def test_weights_solved_in_closed_form_are_counted_and_graphs_are_not():
    assert count_parameters(EASE(EASEConfig(), tiny_view())) == ParameterCount(0, 16)
    model = MMRec(MMRecConfig(embedding_size=2), tiny_view())
    more = dataclasses.replace(tiny_view(), users=torch.zeros(1, dtype=torch.int64),
                               items=torch.ones(1, dtype=torch.int64))  # fmt: skip
    assert count_parameters(model) == count_parameters(MMRec(MMRecConfig(embedding_size=2), more))


def test_features_that_two_parts_of_a_model_share_are_counted_once():
    model = MMRec(MMRecConfig(embedding_size=2, missing="zero"), tiny_view())
    before = count_parameters(model)
    model.again = nn.ModuleList([model.inputs[0]])
    assert count_parameters(model) == before


# ------------------------------------------------------------------ latency


def test_percentiles_are_of_milliseconds_after_the_warm_up(monkeypatch):
    calls = []
    times = iter(np.concatenate([np.full(3, 9.0), np.arange(1, 101) / 1000]))
    state = {"now": 0.0}
    monkeypatch.setattr(cost_of_runs.time, "perf_counter", lambda: state["now"])
    monkeypatch.setattr(cost_of_runs.time, "process_time", lambda: state["now"] / 2)

    def call() -> None:
        calls.append(1)
        state["now"] += next(times)

    found = latency(call, 100, seconds=1e9)
    assert found.calls == 100
    assert len(calls) == 103
    assert (found.p50, found.p99, found.cpu) == pytest.approx((50.5, 99.01, 25.25))


def test_slow_calls_are_fewer_but_never_below_the_fewest(monkeypatch):
    state = {"now": 0.0}
    monkeypatch.setattr(cost_of_runs.time, "perf_counter", lambda: state["now"])

    def call(seconds: float) -> None:
        state["now"] += seconds

    assert latency(lambda: call(60.0), 200).calls == cost_of_runs.FEWEST
    assert latency(lambda: call(0.25), 200).calls == 40  # ten seconds
    assert latency(lambda: call(60.0), 5).calls == 5


# ------------------------------------------------------------------ asking


@pytest.mark.parametrize("model", ["lightgcn", "ease", "mmrec"])
def test_what_is_timed_is_the_recommendation_itself(model):
    options = {} if model == "ease" else {"epochs": 1}
    fitted = fit(DATASET, model, device="cpu", **options)
    asker = Asker(fitted, 5, "cpu")
    users = asker.draw(7)
    found = asker.ask(fitted.model.scorer(), users)
    ids = DATASET.users.ids(users)
    expected = fitted.recommend(list(dict.fromkeys(ids)), 5)
    for place, user in enumerate(ids):
        mine = expected.filter(expected["user_id"] == user)["item_id"].to_list()
        assert DATASET.items.ids(found.items[place]) == mine


def test_users_without_interactions_are_never_drawn():
    asker = Asker(fit(DATASET, "popularity"), 5, "cpu")
    assert set(asker.draw(5000)) == set(range(DATASET.n_users - 1))  # the last has none


@pytest.mark.slow
def test_asked_anew_computes_the_tables_and_from_tables_does_not(monkeypatch, tmp_path):
    fit(DATASET, "lightgcn", epochs=1, out=tmp_path / "run", device="cpu")
    seen = {"tables": 0}
    from modalign.models.lightgcn import LightGCN

    original = LightGCN.tables

    def counted(self):
        seen["tables"] += 1
        return original(self)

    monkeypatch.setattr(LightGCN, "tables", counted)
    marks = []
    monkeypatch.setattr(
        cost_of_runs, "latency", lambda call, repeats: (call(), marks.append(seen["tables"]))
    )
    before = seen["tables"]
    cost_of_runs._measure(str(tmp_path / "run"), None, 3, 5, 1, "cpu", 10)
    one, many, table_one, table_many = (mark - before for mark in marks)
    assert (one, many) == (1, 2)
    assert table_one == table_many


# ------------------------------------------------------------------ memory


class Holder:
    """Something kept."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = self.again = tensor


@pytest.mark.slow
@linux
def test_memory_is_what_is_kept_plus_the_peak_of_the_call():
    kept = Holder(torch.zeros(10, 2**18))  # 10 MiB, once though it is held twice

    def call() -> None:
        torch.ones(60, 2**18).sum()  # 60 MiB, given back

    call()
    assert peak_mib(lambda: None, [kept]) == pytest.approx(10, abs=2)
    assert peak_mib(call, [kept]) == pytest.approx(70, abs=4)
    assert peak_mib(lambda: None, [nn.Linear(2**18, 8, bias=False)]) == pytest.approx(8, abs=2)


# ------------------------------------------------------------------ ratios


def test_ratios_are_of_the_first_over_the_others():
    found = Profile((cost(30, 1, 700), cost(2, 0.5, 100)), 256, 20, 1, "cpu", {})
    (ratio,) = found.ratios
    assert (ratio.anew_one, ratio.anew_batch) == (15, 15)
    assert (ratio.tables_one, ratio.tables_batch) == (2, 2)
    assert (ratio.served_one, ratio.served_batch) == (60, 60)
    assert (ratio.parameters, ratio.with_features) == (7, 7)
    assert ratio.anew_mib == 1
    told = found.to_dict()
    assert told["ratios"] == [dataclasses.asdict(ratio)]
    assert RunCost.from_dict(told["runs"][0]) == found.runs[0]


def test_nothing_is_divided_by_nothing():
    (ratio,) = Profile((cost(1, 1, 7, None), cost(1, 1, 0)), 1, 1, 1, "cpu", {}).ratios
    assert ratio.parameters is None
    assert ratio.with_features is None
    assert ratio.tables_mib is None


# ------------------------------------------------------------------ runs


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """teacher, student and ease on the toy; other on another toy; broken without its weights."""
    root = tmp_path_factory.mktemp("runs")
    data = DATASET.save(root / "data")
    fit(data, "mmrec", epochs=1, out=root / "teacher", device="cpu")
    fit(data, "mlprec", epochs=1, out=root / "student", device="cpu")
    fit(data, "ease", out=root / "ease")
    fit(toy_dataset(seed=1), "popularity", out=root / "other")
    fit(data, "popularity", out=root / "broken")
    (root / "broken" / "checkpoints" / "best.safetensors").unlink()
    return root


@pytest.mark.slow
def test_a_run_is_measured_in_a_process_of_its_own(runs):
    told = []
    found = profile(
        [runs / "teacher"], batch=7, k=5, repeats=20, device="cpu",
        progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert told == [(0, 1), (1, 1)]
    (teacher,) = found.runs
    assert (teacher.run, teacher.model) == (str(runs / "teacher"), "mmrec")
    assert teacher.parameters == ParameterCount(7_808, 7_808 + 40 * (8 + 12))
    for one in (teacher.anew_one, teacher.anew_batch, teacher.tables_one, teacher.tables_batch):
        assert 0 < one.p50 <= one.p99
        assert one.calls == 20
    if sys.platform == "linux":
        assert 0 < teacher.tables_mib < teacher.anew_mib < 50
    assert found.ratios == ()
    assert found.to_dict()["environment"]["threads"] == 1


def answered(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], run: Path
) -> dict[str, Any]:
    """What the measuring process would print about a run, measured here."""
    request = {"run": str(run), "data": None, "batch": 3, "k": 5, "threads": 1,
               "device": "cpu", "repeats": 2}  # fmt: skip
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(request)))
    capsys.readouterr()
    cost_of_runs.answer()
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


@pytest.mark.slow
def test_every_kind_of_model_is_measured(runs, monkeypatch, capsys):
    for name, model in (("teacher", "mmrec"), ("student", "mlprec"), ("ease", "ease")):
        found = RunCost.from_dict(answered(monkeypatch, capsys, runs / name))
        assert found.model == model
        assert found.tables_one.calls == 2


def test_a_run_that_cannot_be_read_is_told_in_three_facts(runs, monkeypatch, capsys):
    told = answered(monkeypatch, capsys, runs / "broken")
    done = subprocess.CompletedProcess([], 0, stdout=f"a notice\n{json.dumps(told)}\n", stderr="")
    monkeypatch.setattr(cost_of_runs.subprocess, "run", lambda *_, **__: done)
    with pytest.raises(RunError, match="weights of popularity") as caught:
        profile([runs / "broken"])
    assert caught.value.fix == "train it again"


def test_a_measuring_process_that_dies_is_told(runs, monkeypatch):
    monkeypatch.setattr(cost_of_runs.sys, "executable", "false")
    with pytest.raises(ModalignError, match="ended with exit code 1"):
        profile([runs / "teacher"])


def test_runs_on_other_data_are_refused_before_anything_is_measured(runs):
    with pytest.raises(RunError, match="same data") as caught:
        profile([runs / "teacher", runs / "other"])
    assert "other" in caught.value.got


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"batch": 0}, "batch of at least 1"),
        ({"k": 0}, "k of at least 1"),
        ({"repeats": 0}, "repeats of at least 1"),
        ({"threads": 0}, "threads of at least 1"),
        ({"threads": 100_000}, "as the machine has cores"),
        ({"device": "tpu"}, "a device"),
    ],
)
def test_options_out_of_their_bounds_are_refused(runs, options, match):
    with pytest.raises(ConfigError, match=match):
        profile([runs / "teacher"], **options)


def test_no_run_at_all_and_no_such_run_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="at least one run folder"):
        profile([])
    with pytest.raises(RunError, match="does not exist"):
        profile([tmp_path / "nothing"])
