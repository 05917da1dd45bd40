"""What pages show of reasons, against slow loops."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from served import Asked

import modalign_serve
from modalign_serve.artifact.artifact import Csr
from modalign_serve.artifact.sample import small_artifact
from modalign_serve.artifact.write import write_artifact
from modalign_serve.service.served import Served
from modalign_serve.web.forms import State
from modalign_serve.web.showing import Shower, cards, parts_of

VALUES = st.floats(-5, 5, allow_nan=False)


@given(st.dictionaries(st.sampled_from("abcd"), VALUES, min_size=1), st.lists(VALUES, max_size=4))
def test_bars_share_a_scale_and_lie_on_their_side_of_nothing(
    parts: dict[str, float], others: list[float]
) -> None:
    values = [*parts.values(), *others]
    span = max(0.0, *values, 0.0) - min(0.0, *values, 0.0)
    for part in parts_of(parts, values):
        assert -0.02 <= part.x <= 100.02
        assert part.x + part.width <= 100.03
        edge = part.x if part.value >= 0 else part.x + part.width
        assert edge == pytest.approx(part.zero, abs=0.03)
        if span:
            assert part.width == pytest.approx(100 * abs(part.value) / span, abs=0.01)
    whole = sum(part.share for part in parts_of(parts, values))
    assert abs(whole - 100) <= len(parts) or not any(parts.values())


def test_how_many_items_are_less_like_what_is_liked(web: Asked) -> None:
    served: Served = web.service.models.get("shop")
    ranker, shower = served.ranker, Shower(served, State("shop"))
    liked, rows = np.array([2, 9, 11]), [5, 20, 33]
    whys = [ranker.explain(f"i{row}", items=["i2", "i9", "i11"]) for row in rows]
    found = cards(shower, rows, [1.0, 1.0, 1.0], whys, liked)
    for card, row in zip(found, rows, strict=True):
        for near in card.near:
            table = np.asarray(ranker.artifact.features[near.name])
            others = [at for at in range(len(table)) if at not in liked]
            best = {at: max(table[at] @ table[one] for one in liked) for at in [*others, row]}
            less = sum(best[at] < best[row] - 1e-6 for at in others)
            assert near.above == pytest.approx(100 * less / len(others), abs=3.0)


def test_an_item_without_features_is_like_nothing(web: Asked) -> None:
    served = web.service.models.get("shop")
    why = served.ranker.explain("i7", items=["i2"])
    (card,) = cards(Shower(served, State("shop")), [7], [1.0], [why], np.array([2]))
    assert [near.name for near in card.near] == ["image"]


def test_reasons_are_based_on_what_the_model_reads(tmp_path: Path) -> None:
    made = small_artifact(6, 8, 4, mean_seen=5)
    seen = made.seen.row(0)
    assert len(seen) > 1
    history = Csr(np.array([0, *[1] * 6]), seen[:1].astype(np.int32))
    for artifact, wanted in ((made, seen), (replace(made, history=history), seen[:1])):
        ranker = Served.open("shop", write_artifact(tmp_path / str(len(wanted)), artifact)).ranker
        person = ranker.person("u0")
        item = int(np.setdiff1d(np.arange(8), seen)[0])
        named = ranker.explain_person(f"i{item}", person, 8).nearest["text"]
        assert {one for one, _ in named} == {f"i{row}" for row in wanted.tolist()}
        assert person.seen.tolist() == seen.tolist()


def test_every_class_of_the_pages_has_its_style() -> None:
    folder = Path(modalign_serve.__file__).parent / "web"
    style = (folder / "page.css").read_text()
    used = set()
    for template in (folder / "templates").glob("*.html"):
        for names in re.findall(r'class="([^"{]*)', template.read_text()):
            used |= set(names.split())
    unstyled = {name for name in used if f".{name}" not in style}
    assert unstyled == set()
