"""Comparing runs: read from folders, averaged over seeds, and a winner only where there is one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import stats

from modalign.errors import RunError
from modalign.evaluate.compare import RunResult, average, compare, matching

USERS = [f"u{row}" for row in range(80)]


def run_of(name: str, values: np.ndarray, key: str = "recall@20", **facts: str) -> RunResult:
    """A run of one metric."""
    frame = pl.DataFrame({"user_id": USERS[: len(values)], key: values})
    facts = {"mask": "strict", "fingerprint": "f" * 16, **facts}
    return RunResult(name, {key: float(values.mean())}, frame, **facts)


def noisy(level: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (level + rng.normal(0, 0.1, len(USERS))).clip(0, 1)


LOW, MIDDLE, HIGH = noisy(0.3, 0), noisy(0.35, 1), noisy(0.6, 2)


# ------------------------------------------------------------------ compare


def test_the_best_wins_where_it_differs_from_every_other() -> None:
    found = compare([run_of("low", LOW), run_of("high", HIGH), run_of("middle", MIDDLE)])
    assert found.winner == {"recall@20": "high"}
    assert found.runs == ["low", "high", "middle"]
    assert [(p.first, p.second) for p in found.pairs] == [
        ("low", "high"),
        ("low", "middle"),
        ("high", "middle"),
    ]
    assert found.metrics["low"] == {"recall@20": pytest.approx(LOW.mean())}


def test_between_seeds_where_both_have_several_and_corrected_among_those() -> None:
    values = {"low": [LOW, noisy(0.31, 3)], "middle": [MIDDLE, noisy(0.36, 4), noisy(0.37, 5)]}
    values["high"] = [HIGH, noisy(0.59, 6)]
    runs = [
        average(name, [run_of(f"{name}-{seed}", one) for seed, one in enumerate(several)])
        for name, several in values.items()
    ]
    found = compare([*runs, run_of("single", MIDDLE)])
    by_hand = {}
    for pair in found.pairs:
        if "single" in (pair.first, pair.second):
            assert pair.between_seeds is pair.corrected_between_seeds is None
            continue
        means = [[one.mean() for one in values[name]] for name in (pair.first, pair.second)]
        by_hand[pair.first, pair.second] = stats.ttest_ind(*means, equal_var=False).pvalue
        assert pair.between_seeds == pytest.approx(by_hand[pair.first, pair.second])
    assert len(by_hand) == 3
    corrected = {(p.first, p.second): p.corrected_between_seeds for p in found.pairs}
    smallest = min(by_hand, key=by_hand.__getitem__)
    largest = max(by_hand, key=by_hand.__getitem__)
    assert corrected[smallest] == pytest.approx(3 * by_hand[smallest])
    assert corrected[largest] >= by_hand[largest]


def test_p_values_are_scipys_and_corrected_by_hand() -> None:
    runs = {"low": LOW, "high": HIGH, "middle": MIDDLE}
    found = compare([run_of(name, values) for name, values in runs.items()])
    p = [stats.ttest_rel(runs[pair.first], runs[pair.second]).pvalue for pair in found.pairs]
    assert [pair.t_test for pair in found.pairs] == pytest.approx(p)
    smallest, middle, largest = sorted(p)
    corrected = {smallest: 3 * smallest}
    corrected[middle] = max(3 * smallest, 2 * middle)
    corrected[largest] = max(corrected[middle], largest)
    for pair, one in zip(found.pairs, p, strict=True):
        assert pair.corrected == pytest.approx(corrected[one])
        assert pair.significant == (pair.corrected < 0.05)
        gap = runs[pair.first] - runs[pair.second]
        assert pair.wilcoxon == pytest.approx(stats.wilcoxon(gap).pvalue)
        assert pair.difference == pytest.approx(gap.mean())
        interval = stats.ttest_1samp(gap, 0).confidence_interval()
        assert (pair.low, pair.high) == pytest.approx((interval.low, interval.high))


def test_no_winner_where_the_best_may_be_chance() -> None:
    close = np.random.default_rng(3).permutation(LOW) + 0.001
    found = compare([run_of("low", LOW), run_of("close", close)])
    assert found.winner == {"recall@20": None}
    assert not found.pairs[0].significant


def test_no_winner_where_the_best_does_not_differ_from_the_second() -> None:
    twin = np.random.default_rng(3).permutation(HIGH)
    found = compare([run_of("high", HIGH), run_of("twin", twin), run_of("low", LOW)])
    assert found.winner == {"recall@20": None}
    assert [pair.significant for pair in found.pairs] == [False, True, True]


def test_equal_runs_have_no_winner() -> None:
    found = compare([run_of("one", LOW), run_of("other", LOW)])
    assert found.winner == {"recall@20": None}
    assert found.pairs[0].corrected == 1.0


def test_the_correction_and_the_level_decide() -> None:
    # Each of the two pairs with "best" has a p-value below 0.05 only before the correction.
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(2, 60))
    noise -= noise.mean(1, keepdims=True)
    best = np.full(60, 0.5)
    near = [best - 0.28 * one.std(ddof=1) - one for one in noise]
    runs = [run_of("best", best), *(run_of(f"near{i}", one) for i, one in enumerate(near))]
    found = compare(runs)
    assert [pair.t_test < 0.05 for pair in found.pairs] == [True, True, False]
    assert [pair.significant for pair in found.pairs] == [False, False, False]
    assert found.winner["recall@20"] is None
    assert compare(runs, level=0.2).winner["recall@20"] == "best"
    assert compare(runs, level=0.2).level == 0.2


def test_each_metric_is_corrected_on_its_own_and_beyond_accuracy_none_wins() -> None:
    def both(name: str, values: np.ndarray) -> RunResult:
        frame = pl.DataFrame(
            {"user_id": USERS, "recall@20": values, "ndcg@20": values / 2, "novelty@20": values}
        )
        means = {key: float(frame[key].mean()) for key in frame.columns[1:]}
        return RunResult(name, {**means, "coverage@20": 0.5}, frame, "train", "f")

    found = compare([both("low", LOW), both("high", HIGH)])
    assert found.winner == {"recall@20": "high", "ndcg@20": "high"}
    assert {pair.metric for pair in found.pairs} == {"recall@20", "ndcg@20"}
    assert all(pair.corrected == pair.t_test for pair in found.pairs)
    assert set(found.metrics["low"]) == {"recall@20", "ndcg@20", "novelty@20", "coverage@20"}


def test_only_shared_metrics_are_compared() -> None:
    one, other = run_of("one", LOW), run_of("other", HIGH)
    more = replace(one, metrics={**one.metrics, "recall@99": 0.1})
    found = compare([more, other])
    assert set(found.winner) == set(found.metrics["one"]) == {"recall@20"}


def test_a_metric_of_another_version_is_shown_and_not_tested() -> None:
    runs = [
        replace(one, metrics={**one.metrics, "wonder@20": 0.1})
        for one in (run_of("one", LOW), run_of("other", HIGH))
    ]
    found = compare(runs)
    assert found.metrics["one"]["wonder@20"] == 0.1
    assert set(found.winner) == {"recall@20"}


def test_users_in_another_order_are_matched_by_id() -> None:
    order = np.random.default_rng(0).permutation(len(USERS))
    high = run_of("high", HIGH)
    shuffled = replace(high, per_user=high.per_user[order])
    one, other = (compare([run_of("low", LOW), run]) for run in (high, shuffled))
    assert one.pairs[0].t_test == pytest.approx(other.pairs[0].t_test, rel=1e-12)
    assert one.pairs[0].wilcoxon == pytest.approx(other.pairs[0].wilcoxon, rel=1e-12)


def test_the_order_of_runs_turns_signs_only() -> None:
    one = compare([run_of("low", LOW), run_of("high", HIGH)])
    other = compare([run_of("high", HIGH), run_of("low", LOW)])
    assert one.winner == other.winner
    assert one.pairs[0].difference == -other.pairs[0].difference
    assert one.pairs[0].corrected == pytest.approx(other.pairs[0].corrected)


def test_a_comparison_is_plain_json() -> None:
    found = compare([run_of("low", LOW), run_of("high", HIGH)])
    read = json.loads(json.dumps(found.to_dict()))
    assert read["winner"] == {"recall@20": "high"}
    assert read["pairs"][0]["significant"] is True
    assert (read["mask"], read["fingerprint"], read["split"]) == ("strict", "f" * 16, "test")


# ------------------------------------------------------------------ what cannot be compared


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"mask": "train"}, "runs with one mask"),
        ({"fingerprint": "other"}, "runs with one data fingerprint"),
        ({"split": "valid"}, "runs with one split"),
    ],
)
def test_runs_under_other_rules_are_refused(facts: dict[str, str], expected: str) -> None:
    runs = [run_of("one", LOW), run_of("other", HIGH, **facts)]
    for put_together in (compare, lambda runs: average("mean", runs)):
        with pytest.raises(RunError) as caught:
            put_together(runs)
        assert caught.value.expected == expected
        assert f"other: {next(iter(facts.values()))}" in caught.value.got
        assert caught.value.fix == "evaluate all runs on the same data under the same mask"


@pytest.mark.parametrize(
    "other",
    [
        pl.DataFrame({"user_id": USERS[:-1], "recall@20": HIGH[:-1]}),
        pl.DataFrame({"user_id": [*USERS[:-1], "stranger"], "recall@20": HIGH}),
        pl.DataFrame({"user_id": [*USERS, "u0"], "recall@20": [*HIGH, 0.5]}),
    ],
    ids=["fewer", "another", "twice"],
)
def test_runs_of_other_users_are_refused(other: pl.DataFrame) -> None:
    runs = [run_of("one", LOW), replace(run_of("other", HIGH), per_user=other)]
    for put_together in (compare, lambda runs: average("mean", runs)):
        with pytest.raises(RunError) as caught:
            put_together(runs)
        assert caught.value.expected == "the same 80 users in every run"
        assert caught.value.got == f"{len(other)} users in other, not the same ones"
        assert "same split" in caught.value.fix


@pytest.mark.parametrize("names", [[], ["one"], ["one", "one"], ["a", "b", "a"]])
def test_two_or_more_runs_of_different_names_are_wanted(names: list[str]) -> None:
    with pytest.raises(RunError) as caught:
        compare([run_of(name, LOW) for name in names])
    assert caught.value.expected == "two or more runs with different names"
    assert caught.value.got == (", ".join(names) or "none")


# ------------------------------------------------------------------ averages


def test_an_average_over_seeds_is_the_mean_of_each_users_values() -> None:
    runs = [run_of(f"seed {i}", values) for i, values in enumerate((LOW, MIDDLE, HIGH))]
    runs[1] = replace(runs[1], per_user=runs[1].per_user[::-1])
    found = average("model", runs)
    expected = (LOW + MIDDLE + HIGH) / 3
    assert (found.name, found.mask, found.split) == ("model", "strict", "test")
    np.testing.assert_allclose(found.per_user["recall@20"], expected, rtol=1e-12)
    assert found.per_user["user_id"].to_list() == USERS
    assert found.metrics == {"recall@20": pytest.approx(expected.mean())}
    assert average("one", runs[:1]).per_user.equals(runs[0].per_user)


def test_averages_are_compared_as_runs_are() -> None:
    found = compare([average("a", [run_of("1", LOW), run_of("2", MIDDLE)]), run_of("b", HIGH)])
    assert found.winner == {"recall@20": "b"}
    p = stats.ttest_rel((LOW + MIDDLE) / 2, HIGH).pvalue
    assert found.pairs[0].t_test == pytest.approx(p)


def test_an_average_keeps_what_all_seeds_have() -> None:
    one, other = run_of("1", LOW), run_of("2", MIDDLE)
    more = replace(
        one,
        metrics={**one.metrics, "ndcg@20": 0.5, "coverage@20": 0.5},
        per_user=one.per_user.with_columns(**{"ndcg@20": LOW, "n_train": 3}),
    )
    assert set(average("mean", [more, other]).metrics) == {"recall@20"}


def test_an_average_of_nothing_is_refused() -> None:
    with pytest.raises(RunError, match="at least one run of mine"):
        average("mine", [])


# ------------------------------------------------------------------ run folders


def write(folder: Path, **changes: object) -> Path:
    run = run_of("x", LOW)
    folder.mkdir(exist_ok=True)
    found = {"test": run.metrics, "mask": "train", "data": "abc", "model": "x", **changes}
    (folder / "results.json").write_text(json.dumps(found))
    run.per_user.write_parquet(folder / "per_user.parquet")
    return folder


def test_a_run_is_read_from_its_folder(tmp_path: Path) -> None:
    found = RunResult.read(write(tmp_path / "cm3"))
    assert (found.name, found.mask, found.fingerprint, found.split) == (
        "cm3",
        "train",
        "abc",
        "test",
    )
    assert found.metrics == {"recall@20": LOW.mean()}
    assert found.per_user.equals(run_of("x", LOW).per_user)
    assert RunResult.read(str(tmp_path / "cm3"), "mine").name == "mine"


def spoil(folder: Path, how: str) -> None:
    frame = pl.read_parquet(folder / "per_user.parquet")
    match how:
        case "no results":
            (folder / "results.json").unlink()
        case "no users":
            (folder / "per_user.parquet").unlink()
        case "half a json":
            (folder / "results.json").write_text('{"test": {"rec')
        case "a list":
            (folder / "results.json").write_text("[1, 2]")
        case "no table":
            (folder / "per_user.parquet").write_bytes(b"PAR1 and then nothing")
        case "no ids":
            frame.drop("user_id").write_parquet(folder / "per_user.parquet")
        case "no metric":
            frame.drop("recall@20").write_parquet(folder / "per_user.parquet")
        case "no test":
            write(folder, test=None)
        case "words":
            write(folder, test={"recall@20": "high"})


@pytest.mark.parametrize(
    "how",
    [
        "no results",
        "no users",
        "half a json",
        "a list",
        "no table",
        "no ids",
        "no metric",
        "no test",
        "words",
    ],
)
def test_a_damaged_run_folder_is_told_in_three_facts(tmp_path: Path, how: str) -> None:
    spoil(write(tmp_path), how)
    with pytest.raises(RunError) as caught:
        RunResult.read(tmp_path)
    assert str(tmp_path) in caught.value.expected
    assert "\n" not in caught.value.got
    assert "modalign train" in caught.value.fix


def test_a_folder_without_a_key_names_it(tmp_path: Path) -> None:
    write(tmp_path)
    found = json.loads((tmp_path / "results.json").read_text())
    del found["mask"]
    (tmp_path / "results.json").write_text(json.dumps(found))
    with pytest.raises(RunError, match="mask"):
        RunResult.read(tmp_path)


# ------------------------------------------------------------------ users that are shared


def with_pairs(run: RunResult, items: dict[str, list[str]] | None = None) -> RunResult:
    """The run with the test items of each user; by default one item, named after the user."""
    lists = [(items or {}).get(user, [f"item of {user}"]) for user in run.per_user["user_id"]]
    return replace(run, per_user=run.per_user.with_columns(relevant=pl.Series(lists)))


def test_runs_on_different_data_are_compared_on_the_users_with_the_same_test_pairs() -> None:
    low = with_pairs(run_of("low", LOW))
    grown = pl.DataFrame({"user_id": [*USERS[10:], "new"], "recall@20": [*HIGH[10:], 1.0]})
    high = replace(
        run_of("high", HIGH, fingerprint="g" * 16),
        per_user=grown,
        metrics={"recall@20": float(grown["recall@20"].mean()), "coverage@20": 0.5},
    )
    found = compare([low, with_pairs(high, {USERS[20]: ["another item"]})])
    shared = [row for row in range(10, len(USERS)) if row != 20]
    assert (found.n_users, found.measured) == (len(shared), {"low": 80, "high": 71})
    assert found.metrics["low"] == {"recall@20": pytest.approx(LOW[shared].mean())}
    assert found.metrics["high"] == {"recall@20": pytest.approx(HIGH[shared].mean())}
    assert found.pairs[0].t_test == pytest.approx(stats.ttest_rel(LOW[shared], HIGH[shared]).pvalue)
    assert (
        "69 users are shared, with the same test pairs: of 80 of low, 71 of high" in found.remarks
    )
    assert any("the items of different data" in one for one in found.remarks)


def test_the_order_of_a_users_test_items_does_not_matter() -> None:
    one = with_pairs(run_of("one", LOW), {"u3": ["b", "a"]})
    other = with_pairs(run_of("other", HIGH), {"u3": ["a", "b"]})
    assert compare([one, other]).n_users == len(USERS)
    assert not compare([one, other]).remarks


def test_runs_of_one_fingerprint_and_other_pairs_are_not_taken_for_the_same() -> None:
    one = with_pairs(run_of("one", LOW))
    other = with_pairs(run_of("other", HIGH), {user: ["elsewhere"] for user in USERS[1:]})
    with pytest.raises(RunError, match="1 such users"):
        compare([one, other])


def test_who_shares_the_top_and_the_deviation_over_seeds() -> None:
    twin = run_of("twin", np.random.default_rng(3).permutation(HIGH))
    several = average("low", [run_of("1", LOW), run_of("2", noisy(0.31, 3))])
    found = compare([several, run_of("high", HIGH), twin])
    assert set(found.top["recall@20"]) == {"high", "twin"}
    each = [LOW.mean(), noisy(0.31, 3).mean()]
    assert found.deviations == {"low": {"recall@20": pytest.approx(np.std(each, ddof=1))}}
    names, cells = zip(*found.rows(["recall@20"]), strict=True)
    assert names[2] == "low"
    assert cells[0].endswith("=")
    assert cells[1].endswith("=")
    assert cells[2] == f"{np.mean(each):.4f} ± {np.std(each, ddof=1):.4f}  "
    text, page = repr(found), found._repr_html_()
    assert "mask strict" in text
    assert len(text) < 500
    assert page.count("<tr>") == 4


def test_matching_prefers_one_mask_and_then_the_data_of_the_last_run() -> None:
    a, b = run_of("a", LOW), run_of("b", HIGH, fingerprint="new")
    a_new = replace(a, fingerprint="new")
    b_old = replace(b, fingerprint=a.fingerprint)
    assert [r.fingerprint for r in matching([[a, a_new], [b, b_old]])[0]] == ["new", "new"]
    assert [r.fingerprint for r in matching([[a], [b, b_old]])[0]] == [a.fingerprint] * 2
    assert matching([[a], [b]]) == ([a, b], [])
    a_train = replace(a, mask="train")
    b_train = replace(b_old, mask="train")
    found, remarks = matching([[a, a_train], [b_train]])
    assert found == [a_train, b_train]
    assert "mask train" in remarks[0]
    with pytest.raises(RunError) as caught:
        matching([[a], [b_train]])
    assert "a: strict; b: train" in caught.value.got
    assert "measure b under it: modalign evaluate RUN --mask strict" in caught.value.fix
