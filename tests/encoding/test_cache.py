"""Rows on disk: read back by their hashes, brought together, bounded, and never trusted blindly."""

import logging

import numpy as np
import pytest

from modalign.encoding import cache as module
from modalign.encoding.cache import KEY, RowCache


def keys(*numbers):
    return np.array([f"{n:032x}".encode() for n in numbers], KEY)


def rows(*numbers, width=2):
    return np.array([[n] * width for n in numbers], np.float32)


def read(cache, wanted, width=2):
    found = {}
    for places, vectors in cache.known(wanted, width):
        for place, vector in zip(places, vectors, strict=True):
            assert place not in found
            found[int(place)] = vector.tolist()
    return found


def test_rows_come_back_by_their_hashes_after_files_were_brought_together(tmp_path):
    cache = RowCache(tmp_path, {"encoder": "e"})
    for start in range(0, 30, 3):
        cache.keep(keys(*range(start, start + 3)), rows(*range(start, start + 3)))
    cache.keep(keys(4, 5), rows(4, 5))  # two processes had the same inputs
    wanted = keys(29, 100, 4, 0)
    expected = {0: [29, 29], 2: [4, 4], 3: [0, 0]}
    assert read(cache, wanted) == expected
    cache.tidy()
    assert len(list(tmp_path.glob("*/*.rows"))) == 1
    assert read(cache, wanted) == expected
    assert read(RowCache(tmp_path, {"encoder": "e", "revision": 2}), wanted) == {}


def test_damaged_files_and_other_widths_are_removed(tmp_path):
    cache = RowCache(tmp_path, {"encoder": "e"})
    cache.keep(keys(1), rows(1))
    cache.keep(keys(2), rows(2, width=3))
    cache.keep(keys(3), rows(3))
    first = sorted(tmp_path.glob("*/*.rows"))[0]
    first.write_bytes(first.read_bytes()[:30])
    assert read(cache, keys(1, 2, 3)) == {2: [3, 3]}
    assert len(list(tmp_path.glob("*/*.rows"))) == 1
    assert read(cache, keys()) == {}


def test_the_oldest_files_go_where_all_are_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_SMALL", 0)
    old, new = RowCache(tmp_path, {"encoder": "old"}), RowCache(tmp_path, {"encoder": "new"})
    for cache in (old, new):
        cache.keep(keys(1), rows(1, width=100))
    size = next(old.folder.glob("*.rows")).stat().st_size
    import os

    os.utime(next(new.folder.glob("*.rows")), (1, 1))
    read(new, keys(1), 100)  # read a moment ago, so it stays
    os.utime(next(old.folder.glob("*.rows")), (2, 2))
    monkeypatch.setattr(module, "LARGEST", size)
    new.tidy()
    assert not list(old.folder.glob("*.rows"))
    assert read(new, keys(1), 100)


def test_a_folder_that_cannot_be_written_costs_a_warning_only(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    cache = RowCache(tmp_path / "file", {"encoder": "e"})
    with caplog.at_level(logging.WARNING):
        cache.keep(keys(1), rows(1))
        cache.keep(keys(2), rows(2))
        cache.tidy()
    assert len(caplog.records) == 1
    assert read(cache, keys(1)) == {}


@pytest.mark.parametrize("named", ["off", "", "0", "None"])
def test_no_cache_where_the_user_wants_none(monkeypatch, named):
    monkeypatch.setenv("MODALIGN_CACHE", named)
    assert module.cache_folder() is None


def test_the_cache_lies_where_the_system_keeps_caches(monkeypatch, tmp_path):
    monkeypatch.delenv("MODALIGN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert module.cache_folder() == tmp_path / "modalign" / "encoded"
