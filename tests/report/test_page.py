"""The page: whole, self-contained, honest, and never half written."""

from __future__ import annotations

import base64
import io
import itertools
import json
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import yaml
from PIL import Image
from reading import EVIL, Page, Tables, changed

import modalign
from modalign.data.dataset import Dataset
from modalign.data.interactions import Interactions
from modalign.data.vocabulary import Vocabulary
from modalign.errors import ConfigError, DataError, InputError, RunError
from modalign.experiments.fit import load_model
from modalign.report import page as module
from modalign.report.finding import p_value
from modalign.report.gallery import Pictures, chosen_users, hidden_items, thumbnail
from modalign.report.page import write_report
from modalign.report.side_by_side import compare_all, compare_runs
from modalign.testing.toy import toy_dataset

FOLDERS = ("bpr", "ease", "popularity", "bpr_again")


@pytest.fixture(scope="module")
def folders(runs):
    return [getattr(runs, name) for name in FOLDERS]


@pytest.fixture(scope="module")
def written(folders, tmp_path_factory):
    return write_report(folders, tmp_path_factory.mktemp("page") / "new" / "report.html")


@pytest.fixture(scope="module")
def page(written):
    return Page(written.read_text())


def check(page):
    """What holds for every page."""
    ids = page.values("id")
    assert len(set(ids)) == len(ids)
    targets = [link for link in page.values("href") if link.startswith("#")]
    targets += [f"#{name}" for name in page.values("aria-labelledby")]
    targets += re.findall(r"url\((#[^)]+)\)", page.text)
    assert {target[1:] for target in targets} <= set(ids)
    assert all(link.startswith("#") for link in page.values("href"))
    assert all(source.startswith("data:image/") for source in page.values("src"))
    assert not {"script", "link", "iframe", "object", "form"} & {tag for tag, _ in page.tags}
    assert not [key for _, attrs in page.tags for key in attrs if key.startswith("on")]
    assert "@import" not in page.text
    assert not re.search(r"url\((?!#)", page.text)
    assert not re.search(r"https?:(?!//www\.w3\.org/2000/svg\")", page.text)
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels))
    assert not page.open
    for image in page.all("img"):
        kind, _, data = image["src"].partition(";base64,")
        with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
            picture.load()
            assert kind == "data:image/jpeg"
            assert picture.width <= 96
            assert picture.height <= 120
        assert image["alt"]


def metric_rows(page):
    """Metric -> (class, text) of each column, and the names of the columns."""
    tables = [t for t in Tables(page.text).tables if t[0][0][1] == "metric"]
    tables = [t for t in tables if t[0][1][1] != "runs"]
    names = [cell[1] for cell in tables[0][0][1:]]
    assert all([cell[1] for cell in t[0][1:]] == names for t in tables)
    return names, {row[0][1]: row[1:] for t in tables for row in t[1:]}


@pytest.mark.slow
def test_the_page_is_whole_and_needs_nothing_else(page, written):
    check(page)
    assert len(page.all("img")) > 20
    assert written.stat().st_size < 3_000_000
    assert written.parent.is_dir()
    assert [p.name for p in written.parent.iterdir()] == [written.name]


@pytest.mark.slow
def test_all_runs_and_metrics_stand_there_as_measured(page, folders):
    names, rows = metric_rows(page)
    assert names == ["bpr (2 seeds)", "ease", "popularity", "bpr", "bpr-again"]
    tests = {f.name: json.loads((f / "results.json").read_text())["test"] for f in folders}
    mean = {k: (v + tests["bpr-again"][k]) / 2 for k, v in tests["bpr"].items()}
    assert set(rows) == set(mean)
    for metric, cells in rows.items():
        for name, (_, text) in zip(names, cells, strict=True):
            value = (mean if "seeds" in name else tests[name])[metric]
            assert text.removeprefix("★ winner ") == f"{value:.4f}"


def test_winners_and_the_highest_are_marked_exactly(page, folders):
    _, comparison = compare_all(folders)
    names, rows = metric_rows(page)
    for metric, cells in rows.items():
        winner = comparison.winner.get(metric)
        values = {name: comparison.metrics[name][metric] for name in comparison.runs}
        for name, (kind, text) in zip(names, cells, strict=True):
            best = metric in comparison.winner and values.get(name) == max(values.values())
            assert ("best" in kind.split()) == best
            assert ("winner" in kind.split()) == (name == winner) == text.startswith("★")
    assert any(winner is None for winner in comparison.winner.values())


@pytest.mark.slow
def test_a_winner_is_a_winner_in_words_as_well(runs, tmp_path):
    results = json.loads((runs.ease / "results.json").read_text())["test"]
    worse = {"test": {metric: value / 4 for metric, value in results.items()}}
    good = changed(runs.ease, tmp_path / "good")
    bad = changed(runs.ease, tmp_path / "bad", {"options": {"reg": 7.0}}, worse)
    frame = pl.read_parquet(bad / "per_user.parquet")
    frame.with_columns(pl.col("^.*@.*$") / 4).write_parquet(bad / "per_user.parquet")
    page = Page(write_report([good, bad], tmp_path / "r.html", gallery_users=1).read_text())
    assert "good is best in recall@20" in page.shown
    assert "p < 0.001" in page.shown
    _, rows = metric_rows(page)
    winner = compare_all([good, bad])[1].winner
    assert set(winner.values()) == {"good"}
    assert {m for m, cells in rows.items() if cells[0][1].startswith("★")} == set(winner)


def test_hits_are_marked_exactly_where_the_item_is_hidden(page, folders, shop):
    sections = re.split(r'<section class="card user"', page.text)[1:]
    assert 1 < len(sections) <= 6
    fitted = {folder.name: load_model(folder) for folder in folders}
    marked = 0
    for section in sections:
        part = Page(section.partition("</section>")[0].partition(">")[2])
        user_id = re.search(r"User (\S+)", part.shown)[1]
        hidden = hidden_items(shop, user_id)
        for name, one in fitted.items():
            label = f"{name} for user {user_id}"
            at = next(i for i, (_, a) in enumerate(part.tags) if a.get("aria-label") == label)
            tiles = []
            for tag, attrs in part.tags[at + 1 :]:
                if tag == "ul":
                    break
                if tag == "li":
                    tiles.append("hit" in attrs["class"].split())
            items = one.recommend([user_id], 10)["item_id"].to_list()
            assert tiles == [item in hidden for item in items]
            assert f"{name} {sum(tiles)} of {len(hidden)}" in part.shown
            marked += sum(tiles)
        assert f"Hidden items ({len(hidden)})" in part.shown
    assert marked == page.text.count("✓ found</span>") > 0


def test_names_titles_and_ids_are_words_never_markup(page):
    assert "<script" not in page.text
    assert "<u>u" not in page.text
    assert "<i>i" not in page.text
    assert EVIL in page.shown
    assert "User <u>u" in page.shown
    assert "a <b>shop</b>" in page.shown
    assert all(EVIL in image["alt"] for image in page.all("img"))


def test_items_without_a_readable_picture_say_so(shop):
    pictures = Pictures(shop)
    for row in range(shop.n_items):
        lost = row % 5 == 1 or row % 5 == 2 or (row % 5 == 3 and row % 2 == 1)
        assert (pictures.of(row) is None) == lost


def test_a_picture_is_turned_flattened_and_small(tmp_path):
    clear = Image.new("RGBA", (400, 100), (255, 0, 0, 0))
    clear.getexif()[0x0112] = 6  # held upright by the camera
    clear.save(tmp_path / "a.png", exif=clear.getexif())
    found = thumbnail(tmp_path / "a.png")
    small = Image.open(io.BytesIO(base64.b64decode(found.partition(",")[2])))
    assert small.size == (30, 120)
    assert small.getpixel((5, 5)) == (255, 255, 255)
    (tmp_path / "a.tif").write_bytes(b"II*\0" + b"\xff" * 40)
    assert thumbnail(tmp_path / "a.tif") is None
    assert thumbnail(tmp_path) is None


def test_synthetic_data_say_so(page):
    assert "Synthetic data" in page.shown


def test_one_run_in_closed_form_has_no_curves_of_epochs(runs, tmp_path):
    page = Page(write_report([runs.only_7], tmp_path / "r.html").read_text())
    check(page)
    assert "only-7 reaches recall@7" in page.shown
    assert "no other model" in page.shown
    for words in ("Validation", "Paired tests", "★", "winner", "at each cut-off"):
        assert words not in page.shown
    assert page.text.count("<svg") == 2  # by activity, by popularity
    names, rows = metric_rows(page)
    assert names == ["only-7"]
    assert {m.split("@")[1] for m in rows} == {"7"}
    assert not any(cell[0] for cells in rows.values() for cell in cells)


@pytest.mark.slow
def test_several_seeds_of_two_models_are_tested_between_seeds(runs, tmp_path):
    folders = [runs.bpr, runs.bpr_again]
    page = Page(write_report([*folders, runs.ease], tmp_path / "one.html").read_text())
    assert "p seeds" not in page.shown
    again = tmp_path / "ease-2"
    shutil.copytree(runs.ease, again)
    config = yaml.safe_load((again / "config.yaml").read_text())
    (again / "config.yaml").write_text(yaml.safe_dump({**config, "seed": 2}))
    folders += [runs.ease, again]
    page = Page(write_report(folders, tmp_path / "two.html").read_text())
    check(page)
    table = next(t for t in Tables(page.text).tables if t[0][1][1] == "runs")
    assert table[0][-1][1] == "p seeds"
    pairs = {pair.metric: pair for pair in compare_runs(folders, (20,)).pairs}
    for row in table[1:]:
        assert row[-1][1] == p_value(pairs[row[0][1]].corrected_between_seeds)


@pytest.mark.slow
def test_seeds_alone_are_shown_without_a_comparison(runs, tmp_path):
    page = Page(write_report([runs.bpr, runs.bpr_again], tmp_path / "r.html").read_text())
    check(page)
    assert "bpr (2 seeds) reaches recall@20" in page.shown
    assert "no other model" in page.shown


@pytest.mark.slow
def test_runs_of_other_cut_offs_share_what_they_share(runs, tmp_path):
    page = Page(write_report([runs.ease, runs.other_ks], tmp_path / "a.html").read_text())
    check(page)
    names, rows = metric_rows(page)
    assert names == ["ease", "other-ks"]
    assert {m.split("@")[1] for m in rows} == {"3", "5", "10", "20", "50"}
    assert [text for _, text in rows["recall@5"]][1] == "" == rows["recall@3"][0][1]
    page = Page(write_report([runs.bpr, runs.only_7], tmp_path / "b.html").read_text())
    check(page)
    assert "no cut-off in common" in page.shown
    assert "★ winner" not in page.shown


def small_data(n_users=6, n_items=9):
    """No pictures, titles, modalities or validation; too few items left for ten places."""
    rng = np.random.default_rng(0)
    rows = [rng.permutation(n_items)[:6] for _ in range(n_users)]
    users = np.repeat(np.arange(n_users), 4), np.repeat(np.arange(n_users), 2)
    return Dataset(
        name="small",
        users=Vocabulary([f"u{i}" for i in range(n_users)], "user"),
        items=Vocabulary([f"i{i}" for i in range(n_items)], "item"),
        train=Interactions(users[0], np.concatenate([r[:4] for r in rows])),
        valid=Interactions.empty(),
        test=Interactions(users[1], np.concatenate([r[4:] for r in rows])),
    )


@pytest.mark.slow
def test_bare_data_with_short_lists_and_no_validation(tmp_path):
    data = small_data()
    modalign.fit(data, "bpr", out=tmp_path / "bpr", epochs=3, batch_size=8)
    modalign.fit(data, "popularity", out=tmp_path / "pop")
    page = Page(write_report([tmp_path / "bpr", tmp_path / "pop"], tmp_path / "r.html").read_text())
    check(page)
    assert "Modalities" not in page.shown
    assert "Validation recall" not in page.shown
    assert "bpr: " in page.shown
    assert not page.all("img")
    assert "no picture" in page.shown
    assert page.text.count('<section class="card user"') == 6
    assert "5 of 2" not in page.shown
    assert "2 of 2" in page.shown


@pytest.mark.slow
def test_data_that_moved_are_named(tmp_path):
    data = small_data().save(tmp_path / "here")
    modalign.fit(data, "popularity", out=tmp_path / "pop")
    (tmp_path / "here").rename(tmp_path / "there")
    with pytest.raises(RunError, match="--data"):
        write_report([tmp_path / "pop"], tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()
    write_report([tmp_path / "pop"], tmp_path / "r.html", data=tmp_path / "there")
    page = Page((tmp_path / "r.html").read_text())
    check(page)
    assert "Synthetic" not in page.shown


@pytest.mark.slow
def test_the_same_runs_give_the_same_bytes(written, folders, tmp_path):
    again = write_report(folders, tmp_path / "again.html")
    assert again.read_bytes() == written.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("place", ["thumbnail", "bars", "html"])
def test_nothing_is_half_written_when_drawing_fails(runs, tmp_path, monkeypatch, place):
    out = tmp_path / "report.html"
    out.write_text("the page of yesterday")

    def fail(*_args, **_options):
        raise OSError("disk full")

    if place == "thumbnail":
        monkeypatch.setattr(module.Pictures, "of", fail)
    elif place == "bars":
        monkeypatch.setattr(module.plots, "bars", fail)
    else:
        monkeypatch.setattr(module.Path, "write_text", fail)
    with pytest.raises(OSError, match="disk full"):
        write_report([runs.popularity], out, gallery_users=1)
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert out.read_text() == "the page of yesterday"


def test_mistakes_are_told_before_anything_is_drawn(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_load", lambda *_: pytest.fail("began to draw"))
    file = tmp_path / "file"
    file.write_text("")
    no_test = replace(small_data(), test=Interactions.empty())
    modalign.fit(no_test, "popularity", out=tmp_path / "untested")
    for folders, out, options, kind, words in (
        ([], tmp_path / "r.html", {}, RunError, "at least one run folder"),
        ([runs.ease], tmp_path / "r.html", {"gallery_users": 0}, ConfigError, "at least 1 user"),
        ([runs.ease], tmp_path, {}, DataError, "got the folder"),
        ([runs.ease], file / "below" / "r.html", {}, DataError, "the file"),
        ([tmp_path / "none"], tmp_path / "r.html", {}, RunError, "none, which does not exist"),
        ([tmp_path / "untested"], tmp_path / "r.html", {}, DataError, "a test part"),
        ([runs.ease, runs.ease], tmp_path / "r.html", {}, RunError, "every run once"),
    ):
        with pytest.raises(InputError, match=words) as error:
            write_report(folders, out, **options)
        assert type(error.value) is kind
    assert not (tmp_path / "r.html").exists()


def test_a_damaged_log_is_named(runs, tmp_path):
    broken = shutil.copytree(runs.ease, tmp_path / "run")
    data = load_model(runs.ease).dataset.folder
    (broken / "metrics.jsonl").write_text('{"epoch": 1}\n{"ep')
    with pytest.raises(RunError, match=r"metrics\.jsonl"):
        write_report([broken], tmp_path / "r.html", data=data)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 6, 7, 100])
def test_users_of_the_gallery(runs, n):
    evaluations = [load_model(f).evaluate("test", ks=[5]) for f in (runs.ease, runs.popularity)]
    chosen = chosen_users(evaluations, n, 5)
    assert chosen["user_id"].n_unique() == len(chosen)
    frames = [e.per_user.sort("user_id") for e in evaluations]
    mean = (frames[0]["ndcg@5"] + frames[1]["ndcg@5"]) / 2
    score = dict(zip(frames[0]["user_id"], mean, strict=True))
    assert len(chosen) == n or n == 100
    by = {why: [score[u] for u, w in chosen.iter_rows() if w == why] for why in chosen["why"]}
    assert by["served well"][0] == max(score.values())
    if n >= 3 and n < 100:
        sizes = [len(by[why]) for why in ("served well", "in the middle", "served badly")]
        assert max(sizes) - min(sizes) <= 1
        assert min(by["served badly"]) == min(score.values())
        assert min(by["in the middle"]) > 0
    assert chosen.equals(chosen_users(evaluations[::-1], n, 5))


def test_the_gallery_of_nobody_served(tmp_path):
    """No hit at all: nobody is said to be served well."""
    data = toy_dataset(n_users=6, n_items=24)
    found = modalign.fit(data, "popularity").evaluate("test", ks=[5])
    none = replace(found, per_user=found.per_user.with_columns(pl.lit(0.0).alias("ndcg@5")))
    assert set(chosen_users([none], 6, 5)["why"]) == {"served badly"}


@pytest.mark.slow
def test_a_browser_draws_it(written, tmp_path):
    root = next(p for p in map(type(tmp_path), [__file__]) for p in p.resolve().parents[2:3])
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    if not any(map(shutil.which, names)):
        pytest.skip("no Chromium on this machine")
    out = tmp_path / "page.png"
    command = [str(root / "scripts" / "screenshot"), str(written), str(out), "900", "600"]
    for scheme in ("light", "dark"):
        done = subprocess.run([*command, scheme], capture_output=True, text=True, timeout=150)
        assert done.returncode == 0, done.stderr
        with Image.open(out) as image:
            assert image.size == (600, 900)
            pixel = image.convert("L").getpixel((595, 5))
        assert pixel > 200 if scheme == "light" else pixel < 60
