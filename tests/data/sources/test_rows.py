"""Times, bad rows and columns: what every table of interactions goes through."""

from __future__ import annotations

import datetime
import re
import uuid

import numpy as np
import pandas as pd
import polars as pl
import pytest

import modalign
from modalign.data.append import append
from modalign.data.prepare import prepare
from modalign.data.sources import flat_table, given_split, mmrec, recbole
from modalign.data.sources._times import moments
from modalign.errors import ConfigError, DataError

DAY = 1_572_566_400  # 2019-11-01
NOON = DAY + 43_200


def seconds(values, **options):
    rows = pl.LazyFrame({"t": values})
    reading = moments(rows, "t", **options)
    return rows.select(reading.seconds).collect().to_series().to_list(), reading.remark


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2019-11-01", DAY),
        ("2019/11/1", DAY),
        ("2019.11.01", DAY),
        ("20191101", DAY),
        ("20191101120000", NOON),
        ("201911011200", NOON),
        ("2019-11-01T12:00", NOON),
        ("2019-11-01 12:00:00", NOON),
        ("2019-11-01T12:00:00.000Z", NOON),
        ("2019-11-01 12:00:00,000", NOON),
        ("2019-11-01 12:00:00 UTC", NOON),
        ("2019-11-01 UTC", DAY),
        ("2019-11-01T13:30:00+01:30", NOON),
        ("2019-11-01 08:30:00-0330", NOON),
        (" \u200b2019-11-01T12:00Z ", NOON),
        (str(NOON), NOON),
        (f"{NOON}.0", NOON),
        ("7/3/2021 14:05", None),
        ("2019-13-01", None),
        ("2019-02-30", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_a_moment_in_every_form_also_among_others(text, wanted):
    assert seconds([text])[0] == [wanted]
    mixed, _ = seconds(["2019-11-01", text, "20191101120000", str(NOON)])
    assert mixed == [DAY, wanted, NOON, NOON]


@pytest.mark.parametrize(("unit", "per"), [("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)])
def test_one_odd_value_does_not_change_the_unit_of_the_others(unit, per):
    good = [(NOON + i) * per for i in range(99)]
    for odd in (5, (NOON * 1000 if per == 1 else NOON), 10**20, -3):
        values, remark = seconds([*map(float, good), float(odd)])
        assert values[:99] == [pytest.approx(NOON + i, abs=1e-3) for i in range(99)]
        assert values[99] is None
        assert (remark is None) == (unit == "s")
    assert seconds([7, 8], unit=unit)[0] == pytest.approx([7 / per, 8 / per], rel=1e-12)


def test_numbers_that_are_no_times_count_as_an_order_and_say_so():
    values, remark = seconds([3, 1, 2])
    assert values == [3, 1, 2]
    assert "count as an order" in remark


def test_given_formats_and_types():
    assert seconds(["3/7/2021 14:05"], style="%d/%m/%Y %H:%M")[0] == [1_625_234_700 + 86_400]
    assert seconds(["07 03, 2014"], style="%m %d, %Y")[0] == [1_404_345_600]
    assert seconds(["01.11.2019 13:00 +0100"], style="%d.%m.%Y %H:%M %z")[0] == [NOON]
    assert seconds([datetime.date(2019, 11, 1), None])[0] == [DAY, None]
    with pytest.raises(ConfigError, match="unit of times"):
        seconds([1], unit="minutes")


def people(time, name="time", n=40):
    """Every user has four items, the last of them at the latest time."""
    return pl.DataFrame(
        {
            "user": [f"u{i // 4}" for i in range(n)],
            "item": [f"i{i % 7}" for i in range(n)],
            name: [time(i) for i in range(n)],
        }
    )


def test_one_row_in_milliseconds_is_named_and_changes_nobody_elses_last_item(tmp_path):
    frame = people(lambda i: str((NOON + i) * (1000 if i == 9 else 1)))
    path = tmp_path / "log.csv"
    frame.write_csv(path)
    with pytest.raises(DataError, match=rf"got '{(NOON + 9) * 1000}' in line 11"):
        flat_table.read(path)
    raw = flat_table.read(path, skip_bad=True)
    rows = raw.interactions.collect()
    assert rows["time"].to_list() == [NOON + i for i in range(40) if i != 9]
    assert raw.bad.select("record", "reason", "user", "time").rows() == [
        (10, "not a time: seconds since 1970 or an ISO date", "u2", str((NOON + 9) * 1000))
    ]


@pytest.mark.parametrize("per", [1, 1000])
def test_all_sources_and_append_read_times_alike(tmp_path, per):
    times = [(NOON + i) * per for i in range(30)]
    pairs = [(i // 5, i % 5) for i in range(30)]
    labels = [(0, 0, 0, 1, 2)[i % 5] for i in range(30)]
    folder = tmp_path / "mm"
    folder.mkdir()
    lines = (f"{u}\t{i}\t{x}\t{t}" for (u, i), x, t in zip(pairs, labels, times, strict=True))
    (folder / "a.inter").write_text("userID\titemID\tx_label\ttimestamp\n" + "\n".join(lines))
    np.save(folder / "text_feat.npy", np.ones((5, 2), np.float32))
    (tmp_path / "rb").mkdir()
    (tmp_path / "sp").mkdir()
    parts = [("train", 0), ("valid", 1), ("test", 2)]
    for part, label in parts:
        some = [k for k in range(30) if labels[k] == label]
        rows = "".join(f"{pairs[k][0]}\t{pairs[k][1]}\t{times[k]}\n" for k in some)
        head = "user_id:token\titem_id:token\ttimestamp:float\n"
        (tmp_path / "rb" / f"a.{part}.inter").write_text(head + rows)
        (tmp_path / "sp" / f"{part}.tsv").write_text("user_id\titem_id\ttimestamp\n" + rows)
    wanted = sorted(NOON + i for i in range(30))
    for raw in (
        mmrec.read(folder),
        recbole.read(tmp_path / "rb"),
        given_split.read(tmp_path / "sp"),
    ):
        assert sorted(raw.interactions.collect()["time"].to_list()) == wanted
        assert any("milliseconds" in one for one in raw.info["remarks"]) == (per == 1000)
    old = prepare(given_split.read(tmp_path / "sp"), tmp_path / "data")
    events = pl.DataFrame(
        {"user_id": ["0"], "item_id": ["new"], "kind": ["buy"], "time": [(NOON + 99) * per]}
    )
    events.write_parquet(tmp_path / "events.parquet")
    made = append(old.folder, tmp_path / "events.parquet", tmp_path / "two")
    assert made.train.time.max() == NOON + 99


@pytest.mark.parametrize("name", ["ordered_at", "event_time", "t_dat", "InvoiceDate", "when", "x"])
def test_the_only_column_of_times_is_taken_and_shown(name, tmp_path):
    frame = people(lambda i: f"2019-11-{i % 28 + 1:02d}", name)
    raw = flat_table.read(frame.with_columns(colour=pl.lit("red"), price=pl.lit(3.5)))
    assert raw.info["columns"] == {"user": "user", "item": "item", "time": name}
    assert raw.info["not_used"] == ["colour", "price"]
    data = prepare(raw, split="leave-one-out")
    last = frame.sort(name).group_by("user").last().sort("user")
    hidden = data.items.ids(data.test.items.tolist())
    assert dict(zip(data.users.ids(data.test.users.tolist()), hidden, strict=True)) == dict(
        last.select("user", "item").rows()
    )


def test_numbers_are_times_only_under_such_a_name():
    raw = flat_table.read(people(lambda i: NOON + i, "invoice"))
    assert "time" not in raw.info["columns"]
    assert flat_table.read(people(lambda i: NOON + i, "seen_ts")).info["columns"]["time"]


@pytest.mark.parametrize("split", ["leave-one-out", "time"])
def test_an_order_by_times_that_are_not_there_is_refused(split):
    frame = people(lambda i: "2019-11-01", "first").with_columns(second=pl.col("first"))
    with pytest.raises(DataError, match=r"first, second look like times.*--time"):
        modalign.load(frame, split=split)
    with pytest.raises(DataError, match="its other columns are colour"):
        modalign.load(people(lambda i: "red", "colour"), split=split)


def test_bad_rows_come_together(tmp_path):
    lines = [f"u{i % 10},i{i % 9},{i % 5},{NOON + i}" for i in range(60)]
    for i in range(20, 40):
        lines[i] = f"u{i % 10},,{i % 5},{NOON}"
    lines[41] = f"NULL,i1,3,{NOON}"
    lines[42] = f"u1,i1,good,{NOON}"
    lines[43] = "u1,i1,3,yesterday"
    path = tmp_path / "log.csv"
    path.write_text("user,item,rating,time\n" + "\n".join(lines) + "\n")
    with pytest.raises(DataError) as caught:
        flat_table.read(path)
    said = str(caught.value)
    assert "23 bad rows of 60" in said
    for words in (
        "1 without a user id",
        "20 without an item id",
        "1 without a finite",
        "--skip-bad",
    ):
        assert words in said
    assert [int(one) for one in re.findall(r"line (\d+): nothing", said)] == list(range(22, 32))
    assert "and 13 more" in said
    out = tmp_path / "data"
    data = prepare(flat_table.read(path, skip_bad=True), out)
    kept = pl.read_csv(out / "bad_rows.csv")
    assert kept["record"].to_list() == [*range(21, 41), 42, 43, 44]
    assert kept["reason"].to_list()[-2:] == [
        "not a finite number", "not a time: seconds since 1970 or an ISO date"
    ]  # fmt: skip
    assert len(data.train) + len(data.valid) + len(data.test) == 37
    assert any("23 of 60 rows were left out" in one for one in data.info["remarks"])
    path.write_text("user,item\n,1\n,2\n")
    with pytest.raises(DataError, match="2 bad rows of 2"):
        flat_table.read(path, skip_bad=True)


def test_a_million_bad_rows_print_ten(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("user,item\n" + "u,\n" * 1_000_000)
    with pytest.raises(DataError) as caught:
        flat_table.read(path)
    assert len(str(caught.value)) < 1500
    assert "999,990 more" in str(caught.value)


def test_returns_are_left_out_and_mentioned():
    frame = people(lambda i: NOON + i).with_columns(Quantity=pl.Series([-1, 0] + [2] * 38))
    raw = flat_table.read(frame)
    assert len(raw.interactions.collect()) == 38
    assert any(
        "2 returns were left out (Quantity of zero or less)" in one for one in raw.info["remarks"]
    )
    assert len(flat_table.read(frame, returns="keep").interactions.collect()) == 40
    # A rating of zero is a rating.
    rated = frame.rename({"Quantity": "rating"})
    assert len(flat_table.read(rated).interactions.collect()) == 40


@pytest.mark.parametrize("missing", ["nan", "NULL", "None", "[]", "\u200b", " ", "<NA>"])
def test_missing_is_missing_in_ids_titles_and_numbers(missing):
    frame = pl.DataFrame({"user": ["1", missing], "item": ["a", "b"], "rating": ["1", missing]})
    with pytest.raises(DataError, match="row 1 of the data frame"):
        flat_table.read(frame)
    items = pl.DataFrame({"item_id": ["a", "b"], "title": ["A", missing]})
    assert flat_table.item_table(items)["title"].to_list() == ["A", None]


def test_ids_of_any_kind_in_frames():
    some = [uuid.UUID(int=i) for i in range(3)]
    frame = pd.DataFrame({"user": some * 2, "item": [1, "1", 2, "b", 2.0, "c"]})
    rows = flat_table.read(frame).interactions.collect()
    assert rows["user_id"].to_list() == [str(one) for one in some * 2]
    assert rows["item_id"].to_list() == ["1", "1", "2", "b", "2", "c"]
    with_gap = pd.DataFrame({"user": [uuid.UUID(int=1), None], "item": [1, 2]})
    with pytest.raises(DataError, match="row 1"):
        flat_table.read(with_gap)


def test_an_account_with_a_hundred_times_the_median_is_mentioned():
    pairs = [(f"u{i}", j) for i in range(30) for j in range(3)]
    pairs += [("robot", j) for j in range(300)]
    data = modalign.load(pl.DataFrame(pairs, schema=["user", "item"], orient="row"))
    assert any("'robot' has 300" in one for one in data.info["remarks"])
    assert not any("'u" in one for one in data.info["remarks"])
