"""What results look like in a session and in a notebook: short, and escaped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import torch

import modalign
from modalign import ot
from modalign.evaluate.compare import RunResult
from modalign.testing.toy import toy_dataset

TOY = replace(toy_dataset(seed=1), name="a <b>shop</b>")


def things(folder: Path) -> dict[str, object]:
    data = TOY.save(folder / "data")
    fitted = modalign.fit(data, "bpr", epochs=1, ks=(5, 20), out=folder / "bpr")
    modalign.fit(data, "ease", ks=(5, 20), out=folder / "ease")
    grid = {"learning_rate": [0.01, 0.1]}
    sweep = modalign.sweep(data, "bpr", folder / "sweep", grid, seeds=[1, 2], epochs=1)
    x, y = torch.rand(7, 3), torch.rand(9, 3)
    return {
        "data": data,
        "model": fitted,
        "evaluation": fitted.evaluate("test", ks=(5, 20)),
        "comparison": modalign.compare([folder / "bpr", folder / "ease"]),
        "sweep": sweep,
        "divergence": ot.sinkhorn_divergence(x, y),
        "flow": ot.gradient_flow(x, lambda x: x.square().sum(), steps=3, rate=0.1),
    }


def test_results_are_short_in_a_session_and_escaped_in_a_notebook(tmp_path: Path) -> None:
    found = things(tmp_path)
    expected = {
        "data": "60 users, 40 items",
        "model": "bpr on a <b>shop</b>, seed 1; test recall@20",
        "evaluation": "mask strict",
        "comparison": "2 runs on 59 users",
        "sweep": "Sweep of 4 runs",
        "divergence": "7 x 9 points, converged",
        "flow": "3 steps of 7 points in 3 dimensions",
    }
    assert found.keys() == expected.keys()
    for name, thing in found.items():
        text, page = repr(thing), thing._repr_html_()  # type: ignore[attr-defined]
        assert len(text) < 1500, name
        assert expected[name] in text, name
        assert "tensor(" not in text, name
        assert "shape: (" not in text, name
        assert "<b>shop" not in page, name
        assert page.startswith(("<div>", "<pre>")), name
    assert "&lt;b&gt;shop" in found["data"]._repr_html_()  # type: ignore[attr-defined]
    rows = repr(found["sweep"]).splitlines()
    assert len(rows) == 4
    assert "±" in rows[2]


def test_parts_of_results_are_a_line_in_a_session(tmp_path: Path) -> None:
    data = TOY.save(tmp_path / "data")
    fitted = modalign.fit(data, "ease", ks=(5, 20), out=tmp_path / "ease")
    sweep = modalign.sweep(data, "ease", tmp_path / "sweep", {"reg": [5.0, 50.0]})
    frame = pl.DataFrame({"user_id": ["a", "b"], "item_id": ["x", "y"], "title": ["t", "u"]})
    frame.write_csv(tmp_path / "pairs.csv")
    parts = {
        "SweepRun(reg=5.0, seed 1; recall@20 0.": sweep.runs[0],
        "; 1 seeds; valid recall@20 0.": sweep.best,
        "RunResult(ease: test, mask strict, 59 users; recall@20 0.": RunResult.read(fitted.folder),
        "Ranking(59 users, 5 items each)": fitted.evaluate("test", ks=(5,)).ranking,
        ": ease, neighbours; 60 users, 40 items)": modalign.export(fitted, tmp_path / "artifact"),
        "TrainView(60 users, 40 items, 472 interactions; modalities image, text)": data.view(),
        "Modality(text: 8 numbers for 34 of 40 items)": data.modalities["text"],
        "UserHistory(60 users, 40 items; train 472, valid 118, test 118, ": data.history,
        "Interactions(472 pairs)": data.train,
        "RawData(pairs: interactions with user_id, item_id": modalign.read_source(
            "table", tmp_path / "pairs.csv"
        ),
    }
    for expected, part in parts.items():
        assert expected in repr(part)
        assert len(repr(part)) < 200 + len(str(tmp_path)), repr(part)


def test_a_table_of_many_rows_is_cut(tmp_path: Path) -> None:
    from modalign.core import showing

    rows = [[str(row), "x"] for row in range(100)]
    assert showing.text_table("t", ["a", "b"], rows).endswith("... and 70 more")
    assert showing.html_table("t", ["a", "b"], rows).count("<tr>") == showing.MOST_ROWS + 1


@pytest.mark.slow
def test_the_functions_of_the_top_level_work(tmp_path: Path) -> None:
    data = TOY.save(tmp_path / "data")
    for name in ("ease", "popularity"):
        modalign.fit(data, name, ks=(5,), out=tmp_path / name)
    measured = modalign.evaluate(tmp_path / "ease", mask="train", ks=[5])
    assert measured.mask == "train"
    page = modalign.report([tmp_path / "ease", tmp_path / "popularity"], tmp_path / "report.html")
    assert page.stat().st_size > 1000
    assert modalign.export(tmp_path / "popularity", tmp_path / "artifact", index="exact")
    assert (tmp_path / "artifact" / "manifest.json").is_file()
    pairs = {"user_id": [data.users.ids([0])[0]], "item_id": ["new"], "kind": ["buy"], "time": [9]}
    pl.DataFrame(pairs).write_parquet(tmp_path / "feedback.parquet")
    grown = modalign.append(tmp_path / "data", tmp_path / "feedback.parquet", tmp_path / "grown")
    assert grown.n_items == data.n_items + 1
    with pytest.raises(modalign.InputError):
        modalign.export(tmp_path / "popularity", tmp_path / "artifact")
