"""Search by title, against a slow loop."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modalign_serve.artifact.sample import small_artifact
from modalign_serve.artifact.strings import Strings
from modalign_serve.ranker.catalogue import Catalogue
from modalign_serve.web.titles import Titles, folded

TITLES = ["Red rucksack", "rucksack, RED & blue", "Überwurf", "", "a\nred line", "Blue Überwurf"]


def catalogue(titles: list[str]) -> Catalogue:
    made = small_artifact(4, len(titles), 4)
    return Catalogue(replace(made, columns={"title": Strings.of(titles)}))


def slow(titles: list[str], asked: str, n: int) -> list[int]:
    """Words that begin as asked before words that hold the letters."""

    def words(text: str) -> list[str]:
        return re.findall(r"\w+", folded(text))

    def rows(fits: Callable[[str, str], bool]) -> list[int]:
        wanted = words(asked)
        return [
            row
            for row, title in enumerate(titles)
            if wanted and all(any(fits(one, w) for one in words(title)) for w in wanted)
        ]

    return list(dict.fromkeys(rows(str.startswith) + rows(str.__contains__)))[:n]


@pytest.mark.parametrize(
    ("asked", "rows"),
    [
        ("red", [0, 1, 4]),
        ("RED ruck", [0, 1]),
        ("uberwurf", [2, 5]),
        ("ÜBERWURF blue", [5]),
        ("line red", [4]),
        ("rucksack red blue", [1]),
        ("green", []),
        ("wurf", [2, 5]),
        ("ed", [0, 1, 4]),
        ("r", [0, 1, 4, 2, 5]),
        ("rucksack-red", [0, 1]),
        ("&", []),
        ("", []),
        (" i3 ", [3]),
    ],
)
def test_words_in_any_order_case_and_accent(asked: str, rows: list[int]) -> None:
    held = catalogue(TITLES)
    assert Titles(held).search(held, asked, 9) == rows


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text("aAbB é-\n", max_size=8), min_size=2, max_size=8),
    st.text("abé -", max_size=5),
    st.integers(1, 5),
)
def test_it_is_the_slow_search(titles: list[str], asked: str, n: int) -> None:
    plain = [" ".join(one.split("\n")) for one in titles]
    held = catalogue(titles)
    assert Titles(held).search(held, asked, n) == slow(plain, asked, n)


def test_new_items_are_found_first() -> None:
    held = catalogue(TITLES)
    titles = Titles(held)
    more = held.with_items(["n"], np.ones((1, 4), np.float32), [{"title": "A new RED one"}])
    assert titles.search(more, "red", 2) == [6, 0]
    assert titles.search(more, "n", 1) == [6]


def test_without_titles_ids_alone_are_found() -> None:
    held = Catalogue(replace(small_artifact(), columns={}))
    assert Titles(held).search(held, "i3", 5) == [3]
    assert Titles(held).search(held, "item", 5) == []
