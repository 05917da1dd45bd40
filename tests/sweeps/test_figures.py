"""What is drawn of a sweep, read back from the figures' own objects."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image
from sweep_jobs import Formula

from modalign import sweeps
from modalign.evaluate.compare import MetricDifference
from modalign.report import style
from modalign.sweeps import SweepPlan, figures


def drawn(plan: SweepPlan, folder: Path) -> set[str]:
    sweeps.run(plan, Formula(), folder)
    made = sorted(folder.glob("*.png"))
    for path in made:
        with Image.open(path) as image:
            image.verify()
            assert min(image.size) > 150
    return {path.name for path in made}


@pytest.mark.parametrize(
    ("grid", "names"),
    [
        ({"x": [0.001, 0.1, 10]}, {"curve-x.png"}),
        ({"x": [1, 2], "only": [3]}, {"curve-x.png"}),
        ({"x": [1, 2], "y": ["a", "b"]},
         {"curve-x.png", "curve-y.png", "heatmap-x-y.png"}),
        ({"x": [1, 2], "y": ["a", "b"], "z": [0, 1e-4, 1e-2]},
         {"curve-x.png", "curve-y.png", "curve-z.png"}),
    ],
)  # fmt: skip
@pytest.mark.slow
def test_what_is_drawn_of_a_grid(grid, names: set[str], tmp_path: Path) -> None:
    assert drawn(SweepPlan.of_grid(grid, (1, 2)), tmp_path) == names


def test_named_sets_have_one_figure(tmp_path: Path) -> None:
    assert drawn(SweepPlan({"first": {"x": 1}, "second": {"x": 2}}, (1, 2)), tmp_path) == {
        "settings.png"
    }


@pytest.mark.slow
def test_sets_without_a_result_leave_a_hole(tmp_path: Path) -> None:
    grid = {"x": [1, 2], "mood": ["", "fails"]}
    assert len(drawn(SweepPlan.of_grid({**grid, "mood": ["fine", "fails"]}), tmp_path)) == 3


def test_a_curve_has_the_means_the_deviations_and_a_logarithmic_axis(tmp_path: Path) -> None:
    plan = SweepPlan.of_grid({"x": [10, 0.001, 0.1]}, (1, 3))
    found = sweeps.run(plan, Formula(), tmp_path)
    figure = figures._curves(found.rows, "x", [], plan.grid, ["recall@20"])
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    line = axes.lines[0]
    assert list(line.get_xdata()) == [0.001, 0.1, 10]
    assert list(line.get_ydata()) == pytest.approx([0.021, 0.12, 10.02])
    bottom, top = axes.collections[0].get_segments()[0][:, 1]
    assert (top - bottom) / 2 == pytest.approx(0.02 / 2**0.5)


@pytest.mark.slow
def test_a_heat_map_has_every_mean_in_its_cell(tmp_path: Path) -> None:
    plan = SweepPlan.of_grid({"y": ["a", "b"], "x": [3, 1, 2]})
    found = sweeps.run(plan, Formula(), tmp_path)
    figure = figures._heat_map(found.rows, plan.grid, "recall@20")
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "3"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    values = axes.images[0].get_array()
    assert values.tolist() == [[1.01, 2.01, 3.01]] * 2


@pytest.mark.slow
def test_ndcg_stands_beside_recall_where_it_is_known(tmp_path: Path) -> None:
    from modalign.testing.toy import toy_dataset

    grid = {"damping": [0.0, 1.0]}
    found = sweeps.sweep(toy_dataset(), "popularity", tmp_path, grid, ks=(10,), metric="ndcg@10")
    assert figures.siblings("ndcg@10", found.rows) == ["ndcg@10", "recall@10"]
    assert figures.siblings("mrr@10", found.rows) == ["mrr@10"]


@pytest.mark.parametrize("width", [0.003, 0.007, 0.011, 0.02])
@pytest.mark.parametrize("name", ["gae", "without-preference"])
def test_labels_below_the_differences_stand_clear_of_each_other(name: str, width: float) -> None:
    metrics = ["ndcg@20", "recall@20"]
    tests = [
        MetricDifference(
            metric, "full", name, shift, shift - width, shift + width, 0.1, 0.1, 0.1, False
        )
        for metric in metrics
        for shift in (0.0, -0.6 * width)
    ]
    with style.look():
        figure = figures._forest(tests, metrics)
        FigureCanvasAgg(figure).draw()
    for axes in figure.axes:
        low, high = axes.get_xlim()
        ticks = zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)
        boxes = [label.get_window_extent() for at, label in ticks if low <= at <= high]
        assert len(boxes) >= 2
        assert all(left.x1 < right.x0 for left, right in pairwise(boxes))


def test_differences_are_those_of_the_variants_with_their_intervals(tmp_path: Path) -> None:
    def pair(metric: str, second: str, difference: float, significant: bool) -> MetricDifference:
        low, high = difference - 0.02, difference + 0.03
        return MetricDifference(
            metric, "full", second, difference, low, high, 0.1, 0.1, 0.1, significant
        )

    tests = [
        pair("recall@20", "a", 0.01, False),
        pair("recall@20", "b", -0.05, True),
        pair("map@20", "a", 0.5, True),
    ]
    (axes,) = figures._forest(tests, ["recall@20"]).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    points = [line for line in axes.lines if line.get_marker() == "o"]
    assert [line.get_xdata()[0] for line in points] == pytest.approx([-0.01, 0.05])
    assert points[0].get_markerfacecolor() == "white" != points[1].get_markerfacecolor()
    ends = [segments.get_segments()[0][:, 0].tolist() for segments in axes.collections]
    assert ends == [pytest.approx([-0.04, 0.01]), pytest.approx([0.02, 0.07])]

    found = sweeps.run(SweepPlan({"full": {"x": 1}, "a": {"x": 2}}, (1,)), Formula(), tmp_path)
    assert figures.draw_differences(found, tests[2:]) == []
