from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modalign_serve.artifact import strings
from modalign_serve.artifact.strings import Ids, Strings, UnknownIds

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)


@settings(deadline=None, max_examples=60)
@given(st.lists(TEXT, max_size=20))
def test_texts_come_back(texts: list[str]) -> None:
    column = Strings.of(texts)
    assert list(column) == texts
    assert [column[row] for row in range(len(texts))] == texts


@settings(deadline=None, max_examples=60)
@given(st.lists(TEXT, max_size=20, unique=True), st.lists(TEXT, max_size=5))
def test_rows_equal_those_of_a_dictionary(texts: list[str], asked: list[str]) -> None:
    ids, known = Ids.pack(texts), {one: row for row, one in enumerate(texts)}
    wanted = [*asked, *reversed(texts)]
    assert ids.find(wanted).tolist() == [known.get(one, -1) for one in wanted]
    assert [ids.row(one) for one in wanted] == [known.get(one, -1) for one in wanted]


def test_ids_that_share_a_hash_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = Strings.of(["a", "b", "c"])
    same = Ids(packed.data, packed.starts, np.full(3, 7, np.uint64), np.array([2, 0, 1]))
    monkeypatch.setattr(strings, "hashed", lambda one: 7)
    assert [same.row(one) for one in "abcd"] == [0, 1, 2, -1]
    assert same.find(["c", "d", "a"]).tolist() == [2, -1, 0]


def test_unknown_ids_are_named() -> None:
    with pytest.raises(UnknownIds, match="'x', 'y'") as caught:
        Ids.pack(["a", "b"], "user").rows(["x", "a", "y"])
    assert (caught.value.kind, caught.value.ids) == ("user", ["x", "y"])


def test_no_row_before_the_first_or_after_the_last() -> None:
    column = Strings.of(["a"])
    for row in (-1, 1):
        with pytest.raises(IndexError):
            column[row]
