"""Errors of every space against slow loops, what is said of the claim, and what is drawn."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
import torch
from scipy.spatial.distance import pdist

from modalign.core import seeds
from modalign.data.interactions import Interactions
from modalign.errors import ConfigError
from modalign.experiments.fit import fit, load_model
from modalign.report.paper_figures import recgoat, space_errors
from modalign.report.paper_figures.figure import FIGURES
from modalign.report.paper_figures.recgoat import entropy_bits
from modalign.report.paper_figures.space_errors import Triples, claim, gaps_and_bounds, watch
from modalign.report.paper_figures.write import write_figures
from modalign.testing.toy import toy_dataset

DATA = toy_dataset()
SMALL = {"embedding_size": 8, "n_heads": 2, "k": 5, "k_users": 5, "batch_size": 128, "epochs": 2}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "watched"
    data = folder.parent / "data"
    DATA.save(data)
    return folder, data, watch(DATA, "recgoat", folder, **SMALL)


def tables(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = seeds.torch_generator(seed, "tables")
    return torch.randn(DATA.n_users, 4, generator=rng), torch.randn(DATA.n_items, 4, generator=rng)


# ------------------------------------------------------------------ errors


def test_negatives_are_unseen_and_fixed():
    triples, again = Triples(DATA, 30), Triples(DATA, 30)
    torch.testing.assert_close(triples.negatives, again.negatives, rtol=0, atol=0)
    shape = (DATA.n_users, DATA.n_items)
    seen = (DATA.train.csr(*shape) + DATA.valid.csr(*shape)).toarray() > 0
    for user, drawn in zip(triples.users.tolist(), triples.negatives.tolist(), strict=True):
        assert not seen[user, drawn].any()
    assert triples.negatives.shape == (len(triples.users), 30)


@pytest.mark.parametrize("block", [7, 1024])
def test_the_auc_is_the_loop_over_users_positives_and_negatives(monkeypatch, block):
    monkeypatch.setattr(space_errors, "BLOCK", block)
    triples = Triples(DATA, 20)
    users, items = tables()
    items[3] = items[5]  # ties
    valid = DATA.valid.csr(DATA.n_users, DATA.n_items)
    each = []
    for user, drawn in zip(triples.users.tolist(), triples.negatives.tolist(), strict=True):
        scores = (users[user] @ items.T).tolist()
        wins = [
            (scores[item] > scores[other]) + 0.5 * (scores[item] == scores[other])
            for item in valid[[user]].indices
            for other in drawn
        ]
        each.append(np.mean(wins))
    assert triples.auc(users, items) == pytest.approx(np.mean(each), abs=1e-3)


def test_the_auc_knows_right_wrong_and_blind():
    triples = Triples(DATA, 20)
    truth = torch.from_numpy(DATA.valid.csr(DATA.n_users, DATA.n_items).toarray()).float()
    identity = torch.eye(DATA.n_items)
    assert triples.auc(truth, identity) == 1.0
    assert triples.auc(-truth, identity) == 0.0
    assert triples.auc(0 * truth, identity) == 0.5


def test_a_user_who_has_seen_everything_does_not_hang():
    rows = np.arange(DATA.n_items)
    everything = Interactions(
        np.r_[DATA.train.users, np.zeros(len(rows), np.int64)], np.r_[DATA.train.items, rows]
    )
    keys = np.unique(everything.users * DATA.n_items + everything.items)
    found = space_errors._unseen(keys, np.array([0, 1]), DATA.n_items, 5, 0)
    assert found.shape == (2, 5)


def test_no_negatives_are_refused():
    with pytest.raises(ConfigError, match="at least 1 negative"):
        Triples(DATA, 0)


# ------------------------------------------------------------------ what is said


@pytest.mark.slow
def test_watching_changes_nothing_and_measures_every_space(run, tmp_path):
    folder, _, document = run
    assert len(document["epochs"]) == 2
    row = document["epochs"][-1]
    for name in ("id", "unified", "image", "text"):
        assert 0 < row[f"error/{name}"] < 1
        assert 0 <= row[f"recall@20/{name}"] <= 1
    assert "error/preference" not in row  # of users
    assert row["recall@20/unified"] == pytest.approx(row["valid/recall@20"])
    assert json.loads((folder / "alignment.json").read_text()) == document
    plain = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]

    fit(DATA, "recgoat", out=tmp_path / "plain", **SMALL)
    lines = (tmp_path / "plain" / "metrics.jsonl").read_text().splitlines()
    for one, other in zip(plain, map(json.loads, lines), strict=True):
        assert {k: v for k, v in one.items() if k != "seconds"} == {
            k: v for k, v in other.items() if k != "seconds"
        }


def row_of(gap: float, bound: float) -> dict[str, float]:
    return {
        "error/unified": 0.1,
        "error/id": 0.05,
        "error/text": 0.1 + gap,
        "w1_after/text": bound - 0.5,
        "nce/id-text": 1.0,
    }


def test_gaps_bounds_and_what_follows_of_them():
    rows = [row_of(0.2, 2.0), row_of(0.1, 1.0), row_of(-0.3, 3.0)]
    gap, bound = gaps_and_bounds(rows, temperature=0.5)["text"]
    np.testing.assert_allclose(gap, [0.2, 0.1, -0.3])
    np.testing.assert_allclose(bound, [2.0, 1.0, 3.0])
    found = claim(rows, 0.5)
    assert found["text"]["above"] == pytest.approx(2 / 3)
    assert found["text"]["last"] == pytest.approx(-0.3)
    assert found["text"]["correlation"] == pytest.approx(-0.5)  # ranks 3 2 1 and 2 1 3
    assert found["text"]["constant"] == pytest.approx(0.1)
    assert found["id"] == {"above": 0.0, "last": pytest.approx(-0.05)}


def test_a_gap_that_never_changes_has_no_correlation():
    assert claim([row_of(0.2, 2.0)] * 2, 0.5)["text"]["correlation"] is None
    assert claim([], 0.5) == {}


# ------------------------------------------------------------------ what is drawn


@pytest.mark.slow
def test_figures_of_a_watched_run(monkeypatch, run, tmp_path):
    folder, data, document = run
    names = {name for name in FIGURES if name.startswith("spaces-")}
    # Only these: drawing the others takes longer, and other tests do.
    monkeypatch.setattr(FIGURES, "_things", {name: FIGURES[name] for name in names})
    summary = write_figures([folder], tmp_path / "figures", data=data, pairs=20)
    found = {one["name"]: one for one in summary["figures"]}
    assert names == {f"spaces-{name}" for name in ("epochs", "gaps", "plans", "items")}
    assert names == set(found)
    for name in names:
        assert (tmp_path / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    claimed = {row["space"]: row for row in found["spaces-gaps"]["numbers"]}
    assert claimed["watched: text"]["above"] == document["claim"]["text"]["above"]
    assert claimed["watched: id"]["correlation"] is None
    table = pl.read_csv(tmp_path / "figures" / "spaces-epochs.csv")
    assert table["w1_after/text"].to_list() == [row["w1_after/text"] for row in document["epochs"]]
    plans = json.loads((tmp_path / "figures" / "spaces-plans.json").read_text())
    model = load_model(folder, data).model
    np.testing.assert_allclose(plans["text"], model.plans()["text"].double().numpy())


def test_spaces_are_drawn_where_their_two_main_directions_put_them():
    rng = seeds.numpy_generator(0, "clouds")
    plane = np.linalg.qr(rng.standard_normal((6, 2)))[0]
    before = {"id": rng.standard_normal((20, 2)) @ plane.T, "text": rng.random((20, 2)) @ plane.T}
    after = {"id": before["id"], "text": 7 * before["id"], "unified": np.zeros((20, 6))}
    figure, places = recgoat.scatter({"before": before, "after": after})
    left, right = (axes.collections for axes in figure.axes)
    np.testing.assert_allclose(places["after"]["text"], np.asarray(right[1].get_offsets()))
    points = [np.asarray(one.get_offsets()) for one in (*left, *right)]
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (before["id"], before["text"])]
    # All lies in one plane, so that the drawing keeps every distance; length is left out of it.
    drawn, whole = np.concatenate(points[:2]), np.concatenate(unit)
    np.testing.assert_allclose(pdist(drawn), pdist(whole), atol=1e-12)
    np.testing.assert_allclose(points[3], points[2], atol=1e-12)
    assert [one.get_facecolor()[0][:3].tolist() for one in left] == [
        one.get_facecolor()[0][:3].tolist() for one in right[:2]
    ]
    assert len(np.unique(points[4].round(12), axis=0)) == 1


def test_plans_are_ordered_without_losing_a_number():
    plan = seeds.numpy_generator(0, "plan").random((6, 6))
    found = recgoat.ordered(plan)
    np.testing.assert_allclose(np.sort(found, axis=None), np.sort(plan, axis=None))
    shuffled = np.eye(6)[seeds.numpy_generator(1, "order").permutation(6)]
    np.testing.assert_array_equal(recgoat.ordered(shuffled), np.eye(6))


def test_bits_of_even_and_of_single_rows():
    np.testing.assert_allclose(entropy_bits(np.ones((2, 8))), [3.0, 3.0])
    np.testing.assert_allclose(entropy_bits(np.eye(4)), np.zeros(4))


def test_a_model_without_spaces_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="space by space"):
        watch(DATA, "bpr", tmp_path / "run")
    assert not (tmp_path / "run").exists()
