"""Figures of the CM3, MMSSL and BANDVAE papers: their numbers counted in another way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from reading import changed
from torch.nn import functional

import modalign
from modalign.data.interactions import Interactions
from modalign.data.splits import split
from modalign.experiments.fit import load_model
from modalign.report.paper_figures import cm3, cold_items, measures, mmssl, over_option
from modalign.report.paper_figures.figure import Material, Subject
from modalign.report.side_by_side import load_runs


def material(*folders):
    loaded = load_runs(folders).items()
    return Material([Subject(n, one, measures.vectors(one)) for n, one in loaded], 1, 10**6)


@pytest.fixture(scope="module")
def aligned(shop, tmp_path_factory):
    home = tmp_path_factory.mktemp("aligned")
    modalign.fit(shop, "cm3", out=home / "cm3", epochs=4, batch_size=64, gamma=1.2)
    return home / "cm3"


@pytest.mark.slow
def test_paths_are_the_logged_losses_and_ends_those_of_the_vectors(aligned, runs):
    made = cm3.paths(material(aligned, runs.bpr, runs.ease))
    data = made.data.filter(~made.data["measured"])
    history = load_model(aligned).history
    assert set(data["run"]) == {"cm3"}
    assert data["alignment"].to_list() == [h["loss/align"] for h in history]
    expected = [h["loss/cal_uniform_item"] / (1.2 * 0.5) for h in history]
    np.testing.assert_allclose(data["items"], expected)
    assert [row["run"] for row in made.numbers] == ["cm3", "bpr"]
    fitted = load_model(runs.bpr)
    train = fitted.dataset.train
    with torch.no_grad():
        users, items = (functional.normalize(one.double()) for one in fitted.model.tables())
    gaps = (users[train.users] - items[train.items]).square().sum(1).mean()
    assert made.numbers[1]["alignment"] == pytest.approx(float(gaps), rel=1e-6)
    some = items[np.unique(train.items)]
    apart = torch.pdist(some).square()
    spread = float((-2 * apart).exp().mean().log())
    assert made.numbers[1]["items"] == pytest.approx(spread, rel=1e-6)


def test_without_logged_losses_there_is_no_path_and_the_caption_says_so(runs):
    made = cm3.paths(material(runs.bpr))
    assert "No run logs the two losses" in made.caption
    assert len(made.figure.axes) == 1
    assert cm3.paths(material(runs.ease)) is None


def test_items_on_the_circle_are_on_it_and_their_angles_have_no_seam(aligned, runs):
    made = cm3.circle(material(aligned, runs.ease))
    np.testing.assert_allclose(made.data["x"] ** 2 + made.data["y"] ** 2, 1.0)
    assert [row["run"] for row in made.numbers] == ["cm3"]
    places = np.linspace(-np.pi, np.pi, 721)
    angles = np.linspace(-np.pi, np.pi, 400, endpoint=False)
    even = cm3.angle_density(np.stack([np.cos(angles), np.sin(angles)], axis=1), places)
    np.testing.assert_allclose(even, 1 / (2 * np.pi), rtol=1e-3)
    seam = np.stack([np.full(50, -1.0), np.linspace(-0.2, 0.2, 50)], axis=1)
    heights = cm3.angle_density(measures.unit_rows(seam), places)
    assert heights[0] == pytest.approx(heights[-1])
    assert heights[0] > 2
    assert heights[len(heights) // 2] < 1e-6
    assert np.trapezoid(heights, places) == pytest.approx(1.0, abs=1e-3)
    assert cm3._covered(even, places) == pytest.approx(1.0, abs=1e-3)
    assert cm3._covered(heights, places) < 0.3


def test_found_pairs_of_items_are_those_of_the_lists(aligned, runs):
    found = material(aligned, runs.ease)
    made = mmssl.degrees(found)
    data = found.dataset
    for run in found.runs:
        pairs, hits = np.zeros(data.n_items, int), np.zeros(data.n_items, int)
        lists = run.fitted.recommend(k=mmssl.K)
        for user, item in zip(data.test.users, data.test.items, strict=True):
            user_id, item_id = data.users.ids([user])[0], data.items.ids([item])[0]
            mine = lists.filter(lists["user_id"] == user_id)["item_id"].to_list()
            pairs[item] += 1
            hits[item] += item_id in mine
        assert made.data["pairs"].to_list() == pairs.tolist()
        assert made.data[f"found by {run.name}"].to_list() == hits.tolist()
        row = next(one for one in made.numbers if one["run"] == run.name)
        degree = made.data["training users"].to_numpy()
        head = degree > np.sort(degree)[::-1][round(0.2 * data.n_items)]
        assert row["head"] == pytest.approx(hits[head].sum() / pairs[head].sum())


@pytest.fixture(scope="module")
def swept(shop, tmp_path_factory):
    """BANDVAE with three regularisations, the first with two seeds."""
    home = tmp_path_factory.mktemp("swept")
    small = {"epochs": 2, "batch_size": 64}
    for name, eps, seed in (("a", 0.01, 1), ("b", 0.01, 2), ("c", 0.3, 1), ("d", 9.0, 1)):
        modalign.fit(shop, "bandvae", out=home / name, seed=seed, transport_reg=eps, **small)
    return [home / name for name in "dbac"]


@pytest.mark.slow
def test_signs_over_an_option_are_means_over_seeds(swept, runs):
    made = over_option.over_option(material(*swept, runs.bpr))
    assert "bandvae over transport_reg" in made.title
    by_value = {row["run"].partition("=")[2]: row for row in made.numbers}
    assert list(by_value) == ["0.01", "0.3", "9"]
    found = [load_model(folder).results for folder in swept]
    for key, value in found[0]["vital_signs"].items():
        assert by_value["9"][key] == value
        assert by_value["0.01"][key] == np.mean([one["vital_signs"][key] for one in found[1:3]])
    assert by_value["0.3"]["ndcg@10"] == found[3]["valid"]["ndcg@10"]
    plan = next(one for one in made.figure.axes if one.get_title() == "plan focus")
    x, y = plan.get_lines()[0].get_data()
    assert list(x) == [0.01, 0.3, 9.0]
    assert y[0] > y[1] > y[2]
    assert plan.get_lines()[-1].get_ydata()[0] == 0.1


@pytest.mark.slow
def test_runs_that_differ_in_more_or_in_nothing_have_no_such_figure(swept, aligned, tmp_path):
    assert over_option.over_option(material(swept[1], swept[2])) is None  # only the seed
    assert over_option.over_option(material(swept[0], aligned)) is None
    other = changed(swept[0], tmp_path / "other")
    config = yaml.safe_load((other / "config.yaml").read_text())
    config["options"] |= {"transport_reg": 1.0, "content_weight": 0.3}
    (other / "config.yaml").write_text(yaml.safe_dump(config))
    data = load_model(swept[0]).dataset.folder
    loaded = load_runs([swept[0], other], data).items()
    both = Material([Subject(n, one, measures.vectors(one)) for n, one in loaded], 1, 10)
    assert over_option.over_option(both) is None


@pytest.mark.slow
def test_cold_items_stand_beside_those_of_the_adapter(shop, runs, tmp_path):
    data = shop
    users = np.concatenate([one.users for one in (data.train, data.valid, data.test)])
    items = np.concatenate([one.items for one in (data.train, data.valid, data.test)])
    label = split("cold-items", users, items, None, 1)
    train, valid, test = (Interactions(users[label == p], items[label == p]) for p in range(3))
    cold = replace(data, train=train, valid=valid, test=test, folder=None).save(tmp_path / "data")
    modalign.fit(cold, "bpr", out=tmp_path / "bpr", epochs=20, batch_size=64)
    modalign.fit(cold, "ease", out=tmp_path / "ease")
    found = material(tmp_path / "bpr", tmp_path / "ease")
    made = cold_items.cold_items(found)
    rows = {(one["run"], one["ranking"]): one for one in made.data.to_dicts()}
    assert set(rows) == {("bpr", "own"), ("bpr", "adapter"), ("ease", "own")}
    for (name, way), row in rows.items():
        if way == "own":
            fitted = next(run.fitted for run in found.runs if run.name == name)
            for among in ("all", "cold"):
                own = fitted.evaluate("test", mask="strict", ks=[20], candidates=among)
                assert row[among] == own.metrics["recall@20"]
    # The toy's features tell the tastes apart, which untrained vectors do not.
    assert rows["bpr", "adapter"]["all"] > rows["bpr", "own"]["all"]
    run = found.runs[0]
    placed = cold_items.adapted(run, *run.vectors)
    warm = np.unique(train.items)
    np.testing.assert_array_equal(placed[warm], run.vectors[1].astype(np.float32)[warm])
    assert cold_items.cold_items(material(runs.bpr)) is None
