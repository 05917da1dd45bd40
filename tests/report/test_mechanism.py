"""The panel "Is the mechanism alive?": signs with their bounds, in words as well as drawn."""

from __future__ import annotations

import re

import pytest
from reading import Page

import modalign
from modalign.core.vital_signs import STUDENT
from modalign.distillation import distill
from modalign.experiments.fit import load_model
from modalign.report.mechanism import mechanisms
from modalign.report.page import write_report


@pytest.fixture(scope="module")
def lively(shop, tmp_path_factory):
    home = tmp_path_factory.mktemp("lively")
    modalign.fit(shop, "mmssl", out=home / "mmssl", epochs=3, batch_size=64)
    return home / "mmssl"


def panel(page):
    return Page(
        page.text.partition('<h2 id="mechanism"')[2].partition("</h2>")[2].partition("<h2")[0]
    )


@pytest.mark.slow
def test_every_sign_is_drawn_and_judged_in_words(lively, tmp_path):
    fitted = load_model(lively)
    signs = fitted.vital_signs
    assert {one.title: one.value for one in signs} == fitted.results["vital_signs"]
    shown = panel(Page(write_report([lively], tmp_path / "r.html", gallery_users=1).read_text()))
    assert shown.text.count("<svg") == len(fitted.signs)
    assert shown.text.count('class="bound"') == len(fitted.signs)
    assert len(re.findall(r'class="star-\d"', shown.text)) == len(signs)
    for one in signs:
        side = "above" if one.alive else "below"
        words = f"{one.value:.3g} , {side} the bound of {one.sign.at_least:g}"
        assert f"{one.part} {words}" in shown.shown if one.part else words in shown.shown
        assert one.sign.meaning[1:] in shown.shown
        assert (one.sign.advice in shown.shown) == any(
            other.sign == one.sign and not other.alive for other in signs
        )


@pytest.mark.parametrize(("value", "idle"), [(0.5, 0), (0.0001, 1)])
@pytest.mark.slow
def test_the_verdict_counts_the_signs_below_their_bounds(lively, value, idle):
    fitted = load_model(lively)
    fitted.history = [
        {"epoch": h["epoch"], "alive/share/views": value, "alive/share/features": 0.4}
        for h in fitted.history
    ]
    (found,) = mechanisms({"a": fitted})
    assert (found["idle"], found["judged"], len(found["signs"])) == (idle, 2, 1)


@pytest.mark.slow
def test_runs_without_a_mechanism_have_no_panel(runs, tmp_path):
    page = Page(write_report([runs.bpr], tmp_path / "r.html", gallery_users=1).read_text())
    assert "mechanism" not in page.shown
    assert load_model(runs.bpr).vital_signs == []


@pytest.mark.slow
def test_a_student_is_judged_by_the_signs_of_distillation(runs, shop, tmp_path):
    made = distill(runs.bpr, shop, out=tmp_path / "small", epochs=1, embedding_size=8, logit="sort")
    student = load_model(tmp_path / "small" / "student")
    assert student.signs == STUDENT
    assert {one.title for one in student.vital_signs} == {"agreement", "improvement"}
    (found,) = mechanisms({"student": student})
    assert found["best"] == made.student.results["best_epoch"]
