"""Figures: the numbers in them against other ways to count them, and the folder they fill."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
import torch
from PIL import Image
from reading import Page, changed
from scipy.linalg import orthogonal_procrustes
from scipy.stats import gaussian_kde, ortho_group

import modalign
from modalign.core import seeds
from modalign.core.interfaces import Queries
from modalign.data.interactions import Interactions
from modalign.errors import ConfigError, DataError, RunError
from modalign.experiments.fit import load_model
from modalign.report import style
from modalign.report.paper_figures import canvas, flows, measures, tarec
from modalign.report.paper_figures.canvas import Curves
from modalign.report.paper_figures.figure import FIGURES, Drawn, figure
from modalign.report.paper_figures.write import write_figures
from modalign.testing.toy import toy_dataset

RNG = np.random.default_rng(0)
NAMES = [name for name in FIGURES if not name.startswith(("spaces-", "option-", "cold-"))]
OF_FLOWS = {name for name in NAMES if name.startswith("fig3")}


# ---------------------------------------------------------------------- measures


def test_rotation_and_factor_are_scipys():
    source, target = RNG.normal(size=(30, 5)), RNG.normal(size=(30, 5))
    turn, factor = measures.procrustes(source, target)
    expected, scale = orthogonal_procrustes(source, target)
    np.testing.assert_allclose(turn, expected, atol=1e-12)
    np.testing.assert_allclose(factor, scale / np.square(source).sum(), rtol=1e-12)


def test_a_turned_and_shrunken_copy_is_found_again():
    target, turn = RNG.normal(size=(40, 6)), ortho_group.rvs(6, random_state=1)
    found, factor = measures.procrustes(0.25 * target @ turn.T, target)
    np.testing.assert_allclose(found, turn, atol=1e-12)
    np.testing.assert_allclose(factor, 4.0)
    assert measures.procrustes(np.zeros((3, 2)), np.ones((3, 2)))[1] == 0.0


def test_neighbour_cosines_are_those_of_a_slow_loop():
    users, items = RNG.normal(size=(9, 4)), RNG.normal(size=(7, 4))
    users[3], items[2] = 0.0, 0.0
    dense = (RNG.random((9, 7)) < 0.4).astype(np.float32)
    dense[5], dense[:, 6] = 0.0, 0.0
    found = measures.neighbour_cosines(users, items, sp.csr_array(dense))

    def cosine(u, i):
        length = np.linalg.norm(users[u]) * np.linalg.norm(items[i])
        return users[u] @ items[i] / length if length else 0.0

    slow_users = [[cosine(u, i) for i in range(7) if dense[u, i]] for u in range(9)]
    slow_items = [[cosine(u, i) for u in range(9) if dense[u, i]] for i in range(7)]
    for values, slow in zip(found, (slow_users, slow_items), strict=True):
        expected = [np.mean(one) if one else np.nan for one in slow]
        np.testing.assert_allclose(values, expected, atol=1e-12)


def test_densities_have_silvermans_bandwidth_and_the_area_of_one():
    values = RNG.normal(size=400)
    places = measures.grid([values, values + 2])
    assert places[0] < np.quantile(values, 0.002)
    assert places[-1] > np.quantile(values, 0.998) + 2
    own = measures.density(values, places)
    spread = min(values.std(), np.subtract(*np.quantile(values, (0.75, 0.25))) / 1.34)
    width = 0.9 * spread * 400**-0.2
    np.testing.assert_allclose(own, gaussian_kde(values, width / values.std(ddof=1))(places))
    cosines = 1.0 - np.abs(RNG.normal(size=500)) / 9
    places = np.linspace(0.0, 1.0, 400)
    mirrored = measures.density(cosines, places, high=1.0)
    np.testing.assert_allclose(np.trapezoid(mirrored, places), 1.0, atol=0.01)
    assert np.trapezoid(measures.density(cosines, places), places) < 0.97


@pytest.mark.parametrize("value", [0.0, 3.0, -1.0])
def test_equal_values_are_one_narrow_hill(value):
    values = np.full(10, value)
    places = measures.grid([values])
    heights = measures.density(values, places)
    assert places[0] < value < places[-1]
    np.testing.assert_allclose(places[heights.argmax()], value, atol=places[1] - places[0])
    np.testing.assert_allclose(np.trapezoid(heights, places), 1.0, atol=0.01)


def sample(data, n=50, block=20, seed=1):
    known = np.bincount(data.train.users, minlength=data.n_users) > 0
    return measures.draw(data, known, n, block, seeds.numpy_generator(seed, "figures", "sample"))


def test_the_sample_is_fixed_by_its_seed_and_holds_test_pairs_once():
    data = toy_dataset(seed=1)
    one, again, other = sample(data), sample(data), sample(data, seed=2)
    for name in ("users", "observed", "random", "block_users", "block_items"):
        np.testing.assert_array_equal(getattr(one, name), getattr(again, name))
        assert not np.array_equal(getattr(one, name), getattr(other, name))
    pairs = list(zip(one.users, one.observed, strict=True))
    assert len(set(pairs)) == len(one.random) == 50
    assert set(pairs) <= set(zip(data.test.users, data.test.items, strict=True))
    active = np.bincount(data.train.users, minlength=data.n_users)
    popular = np.bincount(data.train.items, minlength=data.n_items)
    for rows, counts in ((one.block_users, active), (one.block_items, popular)):
        assert len(set(rows)) == 20
        assert counts[rows].all()
        assert (np.diff(counts[rows]) <= 0).all()


def test_a_sample_takes_all_there_is_and_leaves_out_who_is_not_known():
    data = toy_dataset(seed=1)
    whole = sample(data, n=10**6, block=10**6)
    assert len(whole.users) == len(data.test)
    assert len(whole.block_users) == data.n_users - 1
    known = np.arange(data.n_users) % 2 == 0
    part = measures.draw(data, known, 10**6, 9, np.random.default_rng(0))
    assert not (part.users % 2).any()
    assert not (part.block_users % 2).any()


def whole_scores(fitted):
    """The oracle: everyone against everything at once."""
    data = fitted.dataset
    told = torch.from_numpy(data.train.csr(data.n_users, data.n_items).toarray()).to_sparse_csr()
    with torch.inference_mode():
        scores = fitted.model.eval().score(Queries(torch.arange(data.n_users), told))
    return scores.double().numpy()


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
@pytest.mark.parametrize("name", ["bpr", "ease", "popularity"])
def test_scores_of_pairs_are_the_models_scores_in_any_order(name, runs, monkeypatch):
    monkeypatch.setattr(measures, "USERS_AT_ONCE", 7)
    monkeypatch.setattr(measures, "PAIRS_AT_ONCE", 5)
    fitted = load_model(getattr(runs, name))
    users, items = RNG.integers(60, size=200), RNG.integers(40, size=200)
    found = measures.pair_scores(fitted, users, items)
    np.testing.assert_allclose(found, whole_scores(fitted)[users, items], rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------------- flows


@pytest.fixture(scope="module")
def found():
    return flows.flows(1)


@pytest.mark.slow
def test_the_debiased_flow_arrives_and_the_biased_one_shrinks(found):
    for biased, debiased in (found[:2], found[2:]):
        target = biased.target.var(0).sum()
        assert biased.points[-1].var(0).sum() < 0.7 * target
        assert 0.95 * target < debiased.points[-1].var(0).sum() < 1.05 * target
        assert debiased.losses[-1] < 0.002 * debiased.losses[0]
        assert biased.losses[-1] > 0.2 * biased.losses[0]
        assert debiased.exact[-1] < 0.3 * biased.exact[-1]


@pytest.mark.slow
def test_points_go_along_the_arrows_and_the_exact_cost_is_the_sorted_one(found):
    for flow in found:
        assert len(flow.points) == len(flow.descent) == len(flow.losses) == flows.STEPS + 1
        moved = flow.points[:-1] + flows.RATE * flow.descent[:-1]
        np.testing.assert_allclose(moved, flow.points[1:], atol=1e-12)
    for flow in found[:2]:
        gaps = np.sort(flow.points[..., 0], 1) - np.sort(flow.target[:, 0])
        np.testing.assert_allclose(flow.exact, np.square(gaps).mean(1) / 2)


# ---------------------------------------------------------------------- folders


@pytest.fixture(scope="module")
def few_steps():
    """Flows of a few steps, where a test is not about them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flows, "SHOWN", (0, 1, 2, 3))
        whole, steps = flows.flows, 3
        patch.setattr(flows, "flows", lambda seed: whole(seed, steps))
        yield


@pytest.fixture
def no_pictures(few_steps, monkeypatch):
    """Figures that are made but not painted, where a test is not about that."""
    monkeypatch.setattr(style, "files", lambda figure: {"png": b"png", "svg": b"<svg/>"})


@pytest.fixture(scope="module")
def three(runs):
    return [runs.bpr, runs.bpr_again, runs.ease]


@pytest.fixture(scope="module")
def drawn(three, few_steps, tmp_path_factory):
    out = tmp_path_factory.mktemp("figures") / "new" / "folder"
    return out, write_figures(three, out, pairs=100)


def numbers(summary, name):
    return {row["run"]: row for one in summary["figures"] if one["name"] == name
            for row in one["numbers"]}  # fmt: skip


@pytest.mark.slow
def test_every_figure_has_its_files_and_pictures_with_something_on_them(drawn):
    out, summary = drawn
    assert [one["name"] for one in summary["figures"]] == list(NAMES)
    named = {file for one in summary["figures"] for file in one["files"]}
    assert {path.name for path in out.iterdir()} == named | {"index.html", "figures.json"}
    assert json.loads((out / "figures.json").read_text()) == summary
    for name in NAMES:
        with Image.open(out / f"{name}.png") as picture:
            assert min(picture.size) > 300
            assert len(picture.convert("RGB").getcolors(10**6)) > 20
            assert picture.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
        ElementTree.parse(out / f"{name}.svg")


@pytest.mark.slow
def test_distances_are_those_of_the_vectors_as_they_are_turned_and_scaled(drawn, runs):
    out, summary = drawn
    table = pl.read_csv(out / "fig1ab-distances.csv")
    assert set(table["run"]) == {"bpr-again"}
    first, second = load_model(runs.bpr), load_model(runs.bpr_again)
    data = first.dataset
    user = np.flatnonzero(np.bincount(data.train.users, minlength=data.n_users))
    item = np.flatnonzero(np.bincount(data.train.items, minlength=data.n_items))
    with torch.no_grad():
        target, source = (
            torch.cat([u[user], i[item]]).double().numpy()
            for u, i in (first.model.tables(), second.model.tables())
        )
    turn, scale = orthogonal_procrustes(source, target)
    turned = source @ turn
    for column, moved in (
        ("raw", source),
        ("rotated", turned),
        ("scaled", scale / np.square(source).sum() * turned),
    ):
        expected = np.sqrt(np.square(target - moved).sum(1))
        np.testing.assert_allclose(table[column].to_numpy(), expected, rtol=1e-6)
    ids = [*data.users.ids(user), *data.items.ids(item)]
    assert table["id"].to_list() == ids
    assert table["kind"].to_list() == ["user"] * len(user) + ["item"] * len(item)
    median = table.filter(pl.col("kind") == "item")["rotated"].median()
    np.testing.assert_allclose(
        numbers(summary, "fig1ab-distances")["bpr-again"]["items, rotated"], median
    )


@pytest.mark.slow
def test_neighbours_in_the_file_are_those_of_the_model(drawn, runs):
    table = pl.read_csv(drawn[0] / "fig1c-neighbours.csv")
    assert set(table["run"]) == {"bpr", "bpr-again"}
    fitted = load_model(runs.bpr)
    data = fitted.dataset
    with torch.no_grad():
        users, items = (t.double().numpy() for t in fitted.model.tables())
    matrix = data.train.csr(data.n_users, data.n_items)
    expected = np.concatenate(measures.neighbour_cosines(users, items, matrix))
    own = table.filter(pl.col("run") == "bpr")["cosine"].to_numpy()
    np.testing.assert_allclose(own, expected[~np.isnan(expected)])


@pytest.mark.slow
def test_scores_in_the_files_are_the_models(drawn, runs):
    out, summary = drawn
    raw = pl.read_csv(out / "fig1def-scores.csv")
    free = pl.read_csv(out / "fig1def-standardised.csv")
    assert raw["pair"].to_list() == ["observed"] * 100 + ["random"] * 100
    for name, folder in (("bpr", runs.bpr), ("ease", runs.ease)):
        fitted = load_model(folder)
        rows = fitted.dataset.users.rows(raw["user_id"]), fitted.dataset.items.rows(raw["item_id"])
        expected = whole_scores(fitted)[rows]
        scores = raw[f"score of {name}"].to_numpy()
        np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-6)
        random = scores[100:]
        np.testing.assert_allclose(
            free[f"score of {name}"].to_numpy(), (scores - random.mean()) / random.std()
        )
        gap = scores[:100] - random
        share = np.mean([1.0 if g > 0 else 0.5 if g == 0 else 0.0 for g in gap])
        found = numbers(summary, "fig1def-scores")[name]
        np.testing.assert_allclose(found["separated"], share)
        np.testing.assert_allclose(found["observed, mean"], scores[:100].mean())


@pytest.mark.slow
def test_the_block_is_the_difference_of_scores(drawn, runs):
    table = pl.read_csv(drawn[0] / "fig4-differences.csv")
    bpr, ease = load_model(runs.bpr), load_model(runs.ease)
    rows = bpr.dataset.users.rows(table["user_id"]), bpr.dataset.items.rows(table["item_id"])
    expected = np.abs(whole_scores(bpr)[rows] - whole_scores(ease)[rows])
    np.testing.assert_allclose(table["difference of ease"], expected, rtol=1e-5, atol=1e-6)
    random = pl.read_csv(drawn[0] / "fig1def-scores.csv").filter(pl.col("pair") == "random")

    def standard(name):
        scale = random[f"score of {name}"].to_numpy()
        return (table[f"score of {name}"].to_numpy() - scale.mean()) / scale.std()

    np.testing.assert_allclose(
        table["standardised difference of ease"], np.abs(standard("bpr") - standard("ease"))
    )


@pytest.mark.slow
def test_what_is_drawn_is_the_block_under_one_colour_scale(
    monkeypatch, three, no_pictures, tmp_path
):
    made = []
    whole = tarec.score_maps
    monkeypatch.setattr(tarec, "score_maps", lambda rows: made.append(whole(rows)) or made[0])
    write_figures(three, tmp_path, pairs=20)
    table = pl.read_csv(tmp_path / "fig4-differences.csv")
    maps = [axes for axes in made[0].axes if axes.get_images()]
    assert [one.get_title() for one in maps] == ["bpr-again", "ease"] * 2
    for axes, column in zip(
        maps[:2], ("difference of bpr-again", "difference of ease"), strict=True
    ):
        image = axes.get_images()[0]
        np.testing.assert_allclose(np.asarray(image.get_array()).ravel(), table[column])
    for row in (maps[:2], maps[2:]):
        assert len({one.get_images()[0].get_clim() for one in row}) == 1


@pytest.mark.slow
def test_legends_show_recall_and_curves_keep_their_colours(
    monkeypatch, three, no_pictures, tmp_path
):
    made = {}
    draw = canvas.densities
    monkeypatch.setattr(
        canvas, "densities", lambda p, labels: made.setdefault(len(made), draw(p, labels))
    )
    write_figures(three, tmp_path, pairs=20)
    distances, neighbours, scores = made.values()
    recall = {f.name: json.loads((f / "results.json").read_text())["test"]["recall@20"]
              for f in three}  # fmt: skip
    texts = [text.get_text() for text in scores.legends[0].get_texts()]
    assert texts == [f"{name}, Recall@20 {value:.4f}" for name, value in recall.items()]
    lines = [figure.axes[0].get_lines() for figure in (distances, neighbours, scores)]
    assert [len(one) for one in lines] == [1, 2, 3]
    assert lines[0][0].get_color() == lines[1][1].get_color() == lines[2][1].get_color()
    for one in made.values():
        for axes in one.axes:
            heights = np.array([line.get_ydata().max() for line in axes.get_lines()])
            assert (heights < axes.get_ylim()[1]).all()
            assert axes.get_ylim()[0] == 0


@pytest.mark.slow
def test_the_page_stands_alone_and_says_who_was_left_out(drawn):
    out, summary = drawn
    page = Page((out / "index.html").read_text())
    assert [one["src"].split(",")[0] for one in page.all("img")] == [
        "data:image/svg+xml;base64"
    ] * len(NAMES)
    svg = base64.b64decode(page.all("img")[0]["src"].split(",")[1])
    assert svg == (out / f"{NAMES[0]}.svg").read_bytes()
    assert "http" not in re.sub(r'src="[^"]*"', "", page.text)
    assert {link[1:] for link in page.values("href")} == set(NAMES) <= set(page.values("id"))
    for one in summary["figures"]:
        assert one["title"] in page.shown
        for row in one["numbers"]:
            assert all(f"{v:.4f}" in page.shown for v in row.values() if isinstance(v, float))
    assert len(summary["notes"]) == 1
    assert "ease" in summary["notes"][0]
    assert summary["notes"][0] in page.shown


@pytest.mark.slow
def test_equal_calls_write_equal_files_and_another_seed_does_not(
    drawn, three, no_pictures, tmp_path
):
    out, _ = drawn
    write_figures(three, tmp_path / "again", pairs=100)
    kept = [path for path in out.iterdir() if path.suffix in (".csv", ".json")]
    for path in kept:
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name
    write_figures(three, tmp_path / "other", pairs=100, seed=2)
    for name in ("fig1def-scores.csv", "fig4-differences.csv", "fig3-flow-1d.json"):
        assert (out / name).read_bytes() != (tmp_path / "other" / name).read_bytes()


def panels(names):
    x = np.linspace(0, 1, 9)
    curves = {name: (x, x + place) for place, name in enumerate(names)}
    return [[Curves("users", "x", curves), Curves("items", "x", curves)]]


@pytest.mark.slow
def test_equal_figures_are_equal_bytes():
    one, two = (style.files(canvas.densities(panels("ab"), {"a": "A", "b": "B"})) for _ in "12")
    assert one == two
    assert one["png"].startswith(b"\x89PNG")
    assert b"<dc:date>" not in one["svg"]


@pytest.mark.slow
def test_old_figures_go_and_foreign_files_stay(no_pictures, three, tmp_path):
    write_figures(three[:2], tmp_path, pairs=20)
    (tmp_path / "notes.txt").write_text("mine")
    summary = write_figures([], tmp_path)
    assert {one["name"] for one in summary["figures"]} == OF_FLOWS
    assert summary["reference"] is None
    left = {path.stem for path in tmp_path.iterdir()}
    assert left == OF_FLOWS | {"index", "figures", "notes"}
    assert "Gradient flows" in Page((tmp_path / "index.html").read_text()).shown


@pytest.mark.slow
def test_a_figure_is_one_function_with_a_name(monkeypatch, no_pictures, runs, tmp_path):
    monkeypatch.setattr(FIGURES, "_things", dict(FIGURES.items()))

    @figure("mine", runs=2)
    def mine(material):
        drawing, _ = canvas.panels(1, 1, (3, 3))
        names = [run.name for run in material.runs]
        return Drawn("Mine", "What to see.", drawing, {"names": names})

    summary = write_figures([runs.bpr, runs.ease], tmp_path, pairs=20)
    assert ["mine.png", "mine.svg", "mine.json"] in [one["files"] for one in summary["figures"]]
    assert json.loads((tmp_path / "mine.json").read_text()) == {"names": ["bpr", "ease"]}
    assert "What to see." in Page((tmp_path / "index.html").read_text()).shown
    write_figures([runs.bpr], tmp_path, pairs=20)  # too few runs for it
    assert not list(tmp_path.glob("mine.*"))


@pytest.mark.slow
def test_one_run_alone_is_not_compared(no_pictures, runs, tmp_path):
    summary = write_figures([runs.bpr], tmp_path, pairs=20)
    names = {one["name"] for one in summary["figures"]}
    assert names == set(NAMES) - {"fig1ab-distances", "fig4-differences"}
    assert len(summary["notes"]) == 1


@pytest.mark.slow
def test_a_reference_without_vectors_and_runs_with_others_are_told(
    no_pictures, shop, runs, tmp_path
):
    summary = write_figures([runs.ease, runs.bpr], tmp_path / "a", pairs=20)
    assert {one["name"] for one in summary["figures"]} == set(NAMES) - {"fig1ab-distances"}
    assert "the first run, ease, has no vectors" in summary["notes"][0]
    modalign.fit(shop, "bpr", out=tmp_path / "narrow", epochs=1, embedding_size=3)
    summary = write_figures(
        [runs.bpr, tmp_path / "narrow", runs.bpr_again], tmp_path / "b", pairs=20
    )
    assert set(numbers(summary, "fig1ab-distances")) == {"bpr-again"}
    assert set(numbers(summary, "fig1c-neighbours")) == {"bpr", "narrow", "bpr-again"}
    assert summary["notes"] == [
        "Left out of figures 1(a) and (b): narrow, whose vectors have 3 dimensions; those of bpr "
        "have 64."
    ]
    summary = write_figures([runs.ease, runs.other_ks], tmp_path / "c", pairs=20)
    assert "fig1c-neighbours" not in {one["name"] for one in summary["figures"]}


@pytest.mark.slow
def test_other_masks_and_cutoffs_are_told(no_pictures, runs, tmp_path):
    other = changed(runs.bpr, runs.home / "trained-mask", results={"mask": "train"})
    summary = write_figures([runs.bpr, other, runs.only_7], tmp_path, pairs=20)
    assert any("masks strict and train" in note for note in summary["notes"])
    page = Page((tmp_path / "index.html").read_text()).shown
    assert "only-7, Recall@7 0." in page


@pytest.mark.slow
def test_unseen_users_are_scored_by_their_history(no_pictures, tmp_path):
    data = toy_dataset(seed=1)
    held = data.test.users >= 40
    away = data.train.users >= 40
    new = replace(
        data,
        train=Interactions(data.train.users[~away], data.train.items[~away]),
        test=Interactions(data.test.users[held], data.test.items[held]),
        test_history=Interactions(data.train.users[away], data.train.items[away]),
    ).save(tmp_path / "data")
    modalign.fit(new, "ease", out=tmp_path / "ease")
    modalign.fit(new, "itemknn", out=tmp_path / "itemknn")
    out = tmp_path / "out"
    summary = write_figures([tmp_path / "ease", tmp_path / "itemknn"], out, pairs=200)
    table = pl.read_csv(out / "fig1def-scores.csv").filter(pl.col("pair") == "observed")
    assert table.height == held.sum()
    assert table["score of ease"].std() > 0
    assert numbers(summary, "fig1def-scores")["ease"]["separated"] > 0.6


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"runs": "twice"}, RunError),
        ({"runs": "other data"}, RunError),
        ({"runs": "missing"}, RunError),
        ({"runs": "no test"}, DataError),
        ({"pairs": 0}, ConfigError),
        ({"out": "file"}, DataError),
        ({"out": "below a file"}, DataError),
    ],
)
def test_mistakes_are_told_and_leave_nothing_behind(change, error, runs, tmp_path):
    (tmp_path / "file").write_text("mine")
    chosen = {
        "twice": [runs.bpr, runs.ease, runs.bpr],
        "other data": [runs.bpr, tmp_path / "other"],
        "missing": [runs.bpr, tmp_path / "nowhere"],
        "no test": [tmp_path / "bare"],
    }
    if change.get("runs") == "other data":
        modalign.fit(toy_dataset(seed=2), "popularity", out=tmp_path / "other")
    if change.get("runs") == "no test":
        bare = replace(toy_dataset(seed=2), test=Interactions.empty())
        modalign.fit(bare, "popularity", out=tmp_path / "bare")
    places = {"file": tmp_path / "file", "below a file": tmp_path / "file" / "a" / "b"}
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(error) as raised:
        write_figures(
            chosen.get(change.get("runs"), [runs.bpr]),
            places.get(change.get("out"), tmp_path / "out"),
            pairs=change.get("pairs", 10),
        )
    assert all((raised.value.expected, raised.value.got, raised.value.fix))
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "file").read_text() == "mine"


HARD = ("_hidden", "$x^2$ \\frac{", "<b>b &amp;", "字 é 🙂", "very long " * 12)


@pytest.mark.slow
def test_the_page_holds_any_name(no_pictures, runs, tmp_path):
    hard = [changed(runs.bpr, tmp_path / name) for name in HARD]
    home = load_model(runs.bpr).dataset.folder
    summary = write_figures([runs.bpr, *hard], tmp_path / "out", pairs=20, data=home)
    assert len(numbers(summary, "fig4-differences")) == 5
    page = Page((tmp_path / "out" / "index.html").read_text())
    assert "<b>b &amp;" in page.shown
    assert not page.all("b")
    assert style.short("very long " * 12) in page.shown


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Glyph .* missing from font")
@pytest.mark.parametrize("many", [1, 2, 5])
def test_legends_and_titles_of_any_name_stay_inside_the_figure(many):
    names = [style.short(name) for name in HARD[-many:]]
    figure = canvas.densities(panels(names), {name: f"{name}, Recall@20 0.1" for name in names})
    maps = tarec.score_maps({key: {name: np.eye(3) for name in HARD[-many:]} for key in "ab"})
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        f"{name}, Recall@20 0.1" for name in names
    ]
    for one in (figure, maps):
        style.files(one)
        whole = one.bbox
        texts = [axes.title for axes in one.axes] + [*one.legends]
        for text in texts:
            box = text.get_window_extent()
            assert box.x0 >= whole.x0 - 1
            assert box.x1 <= whole.x1 + 1
            assert box.y1 <= whole.y1 + 1
    assert sum(bool(axes.get_images()) for axes in maps.axes) == 2 * many
