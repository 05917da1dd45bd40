"""Lines with too many fields under --skip-bad: left out alone, kept in the file of bad rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from modalign.data.prepare import prepare
from modalign.data.sources import flat_table
from modalign.errors import DataError

ROWS = ["u1,i1,5,1000000000", "u1,i2,4,1000000001", "u2,i1,3,1000000002", "u2,i3,5,1000000003"]
HEAD = "user_id,item_id,rating,time"
ODD = "u9,i9,5,1000000009,more,fields"


def read(path: Path, **options):
    return flat_table.read(path, skip_bad=True, **options)


@pytest.mark.parametrize("at", range(5))
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_every_other_row_is_kept_wherever_the_line_stands(tmp_path, at, end):
    path = tmp_path / "log.csv"
    path.write_bytes(end.join([HEAD, *ROWS[:at], ODD, *ROWS[at:]]).encode())
    raw = read(path)
    assert raw.interactions.collect().rows() == [
        (u, i, float(r), int(t)) for u, i, r, t in (one.split(",") for one in ROWS)
    ]
    assert raw.bad.select("record", "reason").rows() == [(at + 1, "6 fields instead of 4")]
    assert any("1 line with more fields" in one for one in raw.info["remarks"])
    with pytest.raises(DataError, match=f"6 fields in line {at + 2}"):
        flat_table.read(path).interactions.collect()


def test_with_quotes_over_lines_other_bad_rows_and_their_lines(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(
        "user_id,item_id,time,title\n"
        'u1,i1,1000000000,"two\nlines, and a comma"\n'
        'u2,i2,1000000001,"odd\nand long",x,y\n'
        "u3,,1000000002,plain\n"
        "u4,i4,1000000003,plain\n"
    )
    raw = read(path)
    assert raw.interactions.collect().rows() == [
        ("u1", "i1", 1000000000),
        ("u4", "i4", 1000000003),
    ]
    assert raw.bad["reason"].to_list() == ["6 fields instead of 4", "not an item id"]


@pytest.mark.parametrize("options", [{"separator": "::"}, {"quote": "none"}])
def test_other_ways_to_write_a_table(tmp_path, options):
    between = options.get("separator", ",")
    path = tmp_path / "log.dat"
    path.write_text("\n".join([HEAD, *ROWS, ODD]).replace(",", between) + "\n")
    raw = read(path, **options)
    assert len(raw.interactions.collect()) == 4
    assert raw.bad["reason"].to_list() == ["6 fields instead of 4"]


def test_prepared_data_have_the_line_in_their_file(tmp_path):
    path = tmp_path / "log.csv"
    more = [f"u{u},i{i},5,10000000{u}{i}" for u in range(3, 6) for i in range(1, 5)]
    path.write_text("\n".join([HEAD, *more, ODD]))
    prepare(read(path), tmp_path / "data", split="ratio", seed=1)
    assert "6 fields instead of 4" in (tmp_path / "data" / "bad_rows.csv").read_text()
