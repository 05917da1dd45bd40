"""Figures: valid, stable, complete, and safe with any name."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import matplotlib as mpl
import pytest

from modalign.report import plots, style

NAMES = [
    "plain",
    "_hidden",
    "$x^2$ \\frac{",
    "<b>bold</b> &amp;",
    "字 é 🙂",
    "two\nlines",
    "#0072b2",
]


def series(n):
    return {f"run {i}": ([1, 2, 3], [i, i + 0.5, i + 0.25]) for i in range(n)}


def parts(svg):
    """Class -> elements, ids and texts; parsing alone shows that it is XML."""
    root = ElementTree.fromstring(svg)
    classes: dict[str, list[ElementTree.Element]] = {}
    for element in root.iter():
        if "class" in element.attrib:
            classes.setdefault(element.attrib["class"], []).append(element)
    texts = ["".join(e.itertext()) for e in root.iter() if e.tag.endswith("text")]
    return root, classes, texts


def line(element):
    """The path of a series: its group's first, or the element itself."""
    return element if element.tag.endswith("path") else element.find(".//{*}path")


@pytest.mark.parametrize("n", [1, 2, 9, 17])
def test_one_line_for_each_name_and_a_legend_from_two_on(n):
    _, classes, texts = parts(plots.lines(series(n), "epoch", "recall"))
    assert set(classes) == {f"series-{i}" for i in range(n)}
    assert all(len(found) == 1 for found in classes.values())
    for name in series(n):
        assert texts.count(name) == (1 if n > 1 else 0)
    assert {"epoch", "recall"} <= set(texts)


def test_a_line_goes_through_its_points_in_order():
    svg = plots.lines({"a": ([0, 1, 2], [0, 2, 1])}, "x", "y", ticks=[0, 1, 2])
    path = line(parts(svg)[1]["series-0"][0]).attrib["d"]
    points = [tuple(map(float, p)) for p in re.findall(r"[ML] ([\d.]+) ([\d.]+)", path)]
    (x0, y0), (x1, y1), (x2, y2) = points
    assert x1 - x0 == pytest.approx(x2 - x1)
    assert x1 > x0
    assert y0 - y1 == pytest.approx(2 * (y0 - y2))
    assert y1 < y2 < y0


def test_a_value_that_is_no_number_is_a_gap():
    svg = plots.lines({"a": ([1, 2, 3, 4], [1, math.nan, 2, 3])}, "x", "y")
    path = line(parts(svg)[1]["series-0"][0]).attrib["d"]
    assert "nan" not in svg
    assert path.count("L") == 1  # from 3 to 4; the first point stands alone


@pytest.mark.parametrize("n", [1, 3, 10])
def test_one_bar_for_each_group_and_name(n):
    groups = ["few", "some", "many <b>"]
    values = {f"run {i}": [0.1, 0.2 * i, 0.3] for i in range(n)}
    svg = plots.bars(groups, values, "recall")
    _, classes, texts = parts(svg)
    assert {name: len(found) for name, found in classes.items()} == {
        f"series-{i}": 3 for i in range(n)
    }
    assert set(groups) <= set(texts)
    assert all((name in texts) == (n > 1) for name in values)


def test_heights_of_bars_are_in_proportion():
    svg = plots.bars(["a", "b"], {"x": [1.0, 3.0]}, "y")
    heights = []
    for bar in parts(svg)[1]["series-0"]:
        path = line(bar).attrib["d"]
        ys = [float(y) for _, y in re.findall(r"[ML] ([\d.]+) ([\d.]+)", path)]
        heights.append(max(ys) - min(ys))
    assert heights[1] == pytest.approx(3 * heights[0], rel=1e-4)


@pytest.mark.slow
def test_the_same_input_gives_the_same_bytes():
    with mpl.rc_context({"font.size": 30, "lines.linewidth": 9, "text.usetex": False}):
        other_taste = plots.lines(series(3), "x", "y")
    assert plots.lines(series(3), "x", "y") == other_taste
    bars = {"a": [1, 2], "b": [2, 3]}
    assert plots.bars(["p", "q"], bars, "y") == plots.bars(["p", "q"], bars, "y")


@pytest.mark.slow
def test_names_are_text_whatever_is_in_them():
    values = {name: ([1, 2], [i, 1]) for i, name in enumerate(NAMES)}
    _, classes, texts = parts(plots.lines(values, NAMES[2], NAMES[3]))
    assert len(classes) == len(NAMES)
    for name in NAMES:
        assert " ".join(name.split()) in texts
    groups = parts(plots.bars(NAMES, {name: [1] * len(NAMES) for name in NAMES}, NAMES[3]))
    assert {"_hidden", "<b>bold</b> &amp;", "$x^2$ \\frac{"} <= set(groups[2])


def test_a_very_long_name_keeps_its_ends():
    name = "runs/" + "x" * 100 + "/seed-7"
    _, _, texts = parts(plots.lines({name: ([1], [1]), "b": ([1], [2])}, "x", "y"))
    short = next(text for text in texts if "…" in text)
    assert len(short) <= style.LONGEST
    assert short.startswith("runs/")
    assert short.endswith("/seed-7")


def test_stars_stand_where_told_and_nowhere_else():
    _, classes, _ = parts(plots.lines(series(3), "x", "y", stars={"run 1": (2, 1.5)}))
    assert [name for name in classes if name.startswith("star")] == ["star-1"]


@pytest.mark.slow
def test_from_the_ninth_name_on_lines_are_dashed_and_bars_hatched():
    _, classes, _ = parts(plots.lines(series(9), "x", "y"))
    styles = [line(classes[f"series-{i}"][0]).attrib["style"] for i in (0, 8)]
    assert "stroke-dasharray" not in styles[0]
    assert "stroke-dasharray" in styles[1]
    assert all("var(--series-0, #0072b2)" in style for style in styles)
    svg = plots.bars(["a"], {f"r{i}": [1] for i in range(9)}, "y")
    assert svg.count("<pattern") == 1


def test_colours_follow_the_page_and_nothing_leads_outside():
    for svg in (plots.lines(series(9), "x", "y"), plots.bars(["a"], {"b": [1], "c": [1]}, "y")):
        assert style.PAGE_INK not in svg
        assert "currentColor" in svg
        bare = svg
        for index, colour in enumerate(style.COLOURS):
            bare = bare.replace(f"var(--series-{index}, {colour})", "")
        assert not any(colour in bare for colour in style.COLOURS)
        assert "http" not in svg.replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert "<style" not in svg
        assert "font-family" not in svg


def test_ids_begin_as_told_and_links_reach_them():
    for svg in (
        plots.lines(series(2), "x", "y", ids="one"),
        plots.bars(["a"], {f"r{i}": [1] for i in range(9)}, "y", ids="one"),
    ):
        ids = re.findall(r'\bid="([^"]+)"', svg)
        assert ids
        assert len(set(ids)) == len(ids)
        assert all(name.startswith("one-") for name in ids)
        links = re.findall(r'(?:url\(|href=")#([^")]+)', svg)
        assert links
        assert set(links) == set(ids)


def test_no_series_is_an_empty_figure():
    assert not parts(plots.lines({}, "x", "y"))[1]
    assert not parts(plots.bars([], {}, "y"))[1]
