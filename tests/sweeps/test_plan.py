"""Grids, drawn parts of them, and the folders they go to."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modalign.errors import ConfigError
from modalign.sweeps.plan import SweepPlan, parse_grid

GRID = {"a": [1, 2, 3], "b": ["x", "y"], "c": [0.1, 0.2]}


def test_a_grid_is_the_product_in_its_order() -> None:
    made = list(SweepPlan.of_grid(GRID).settings.values())
    assert made == [dict(zip(GRID, v, strict=True)) for v in itertools.product(*GRID.values())]


def test_a_drawn_part_is_of_the_grid_without_repetition_and_has_its_seed() -> None:
    whole = list(SweepPlan.of_grid(GRID).settings)
    draws = [list(SweepPlan.of_grid(GRID, sample=4, seed=s).settings) for s in (1, 1, 2, 3)]
    assert draws[0] == draws[1]
    assert len({tuple(draw) for draw in draws}) > 1
    for draw in draws:
        assert len(set(draw)) == 4
        assert draw == [name for name in whole if name in draw]
    assert list(SweepPlan.of_grid(GRID, sample=12).settings) == whole


def test_a_huge_grid_is_drawn_from_without_being_made() -> None:
    huge = {name: list(range(100)) for name in "abcdefgh"}
    assert len(SweepPlan.of_grid(huge, sample=5).settings) == 5


@pytest.mark.slow
@settings(max_examples=30)
@given(st.lists(st.text(max_size=90), min_size=1, max_size=4, unique=True))
def test_every_set_has_a_folder_of_its_own_that_any_system_takes(names: list[str]) -> None:
    folders = SweepPlan({name: {} for name in names}, (1,)).folders()
    assert len({one.lower() for one in folders.values()}) == len(names)
    for one in folders.values():
        assert one
        assert one not in (".", "..")
        assert not set(one) & set('/\\:*?"<>| \0')
        assert len(one) <= 100


def test_readable_folders() -> None:
    plan = SweepPlan.of_grid({"reg": [0.1], "modalities": [["text"], ["text", "image"]]})
    assert list(plan.folders().values()) == ["reg=0.1_modalities=_text",
                                             "reg=0.1_modalities=_text_image"]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("reg", "'reg'"),
        ("=1,2", "'=1,2'"),
        ("reg=", "'reg='"),
        ("reg=1,,2", "'1,,2'"),
        ("reg=1,null", "an empty one"),
        ("reg=[1,2", "'[1,2'"),
        ("reg=1,1", "1 twice"),
    ],
)
def test_a_bad_list_is_told(text: str, got: str) -> None:
    with pytest.raises(ConfigError) as told:
        parse_grid([text])
    assert told.value.got == got


@pytest.mark.parametrize(
    "make",
    [
        lambda: SweepPlan.of_grid({}),
        lambda: SweepPlan.of_grid({"a": []}),
        lambda: SweepPlan.of_grid({"a": "xyz"}),
        lambda: SweepPlan.of_grid({"a": [1, 2]}, sample=0),
        lambda: SweepPlan.of_grid({"a": [1, 2]}, sample=3),
        lambda: SweepPlan.of_grid({"a": [1, 2]}, seeds=()),
        lambda: SweepPlan.of_grid({"a": [1, 2]}, seeds=(1, 1)),
        lambda: SweepPlan.of_grid({"a": [1, 2]}, seeds=(-1,)),
        lambda: parse_grid(["a=1", "a=2"]),
    ],
)
def test_plans_that_cannot_be(make) -> None:
    with pytest.raises(ConfigError):
        make()
