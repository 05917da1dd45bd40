"""Data frames in, data frames out."""

from __future__ import annotations

import polars as pl
import pytest

from modalign.data.dataset import SPLITS, Dataset
from modalign.data.frames import from_frame, to_frame
from modalign.errors import DataError, UnknownName

LOG = pl.DataFrame(
    [(f"u{u}", 10 * i, float(1 + (u + i) % 5), 100 * u + i) for u in range(6) for i in range(7)],
    schema=["who", "item", "stars", "time"],
    orient="row",
)


@pytest.mark.parametrize("kind", ["polars", "lazy", "pandas"])
def test_frames_go_in_and_come_out_the_same(tmp_path, kind):
    frame = {"polars": LOG, "lazy": LOG.lazy(), "pandas": LOG.to_pandas()}[kind]
    items = pl.DataFrame({"asin": [30], "name": ["Three"]})
    data = from_frame(
        frame,
        user="who",
        items=items,
        name="mine",
        out=tmp_path / "out",
        split="time",
        allow_unmatched=True,
    )
    assert data.name == "mine"
    assert data.titles()[int(data.items.rows([30])[0])] == "Three"
    for one in (data, Dataset.load(tmp_path / "out")):
        back = to_frame(one)
        assert back.columns == ["user_id", "item_id", "split", "weight", "time"]
        assert set(back.drop("split").rows()) == {(u, str(i), w, t) for u, i, w, t in LOG.rows()}
        assert set(back["split"]) == set(SPLITS[:3])


def test_a_frame_of_a_data_set_makes_the_same_data_set():
    data = from_frame(LOG, user="who", split="leave-one-out", seed=3)
    again = from_frame(to_frame(data), split="leave-one-out", seed=3)
    assert again.fingerprint == data.fingerprint


def test_history_parts_come_out_too():
    data = from_frame(LOG, user="who", split="unseen-users", split_options={"share": 0.5})
    assert set(to_frame(data)["split"]) == set(SPLITS)


def test_mistakes_are_told():
    with pytest.raises(DataError, match=r"column of users .*who, item"):
        from_frame(LOG)
    with pytest.raises(UnknownName, match="'times'"):
        from_frame(LOG, user="who", split="times")
