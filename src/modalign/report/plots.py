"""Figures as SVG text that reads on light and on dark pages, with any number of names.

Ink is `currentColor`, a name's colour is `var(--series-0, #0072b2)` and so on: the page that
holds a figure decides both, and a figure alone has the fallback. Names differ by marker as well
as by colour, and from the ninth on by dashes (hatches in bars), as colours repeat.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any
from xml.etree import ElementTree

from matplotlib.figure import Figure

from modalign.report import style
from modalign.report.style import COLOURS, DASHES, HATCHES, MARKERS, PAGE_INK

POINTS = 10
"""Markers on a long line."""
SIZE, SMALL = (5.6, 3.1), (3.7, 2.1)
"""Width and height in inches, without the legend."""
_SVG = "http://www.w3.org/2000/svg"
_LINK = "{http://www.w3.org/1999/xlink}href"


def lines(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    xlabel: str,
    ylabel: str,
    *,
    stars: Mapping[str, tuple[float, float]] | None = None,
    ticks: Sequence[float] | None = None,
    bound: float | None = None,
    size: tuple[float, float] = SIZE,
    ids: str = "figure",
) -> str:
    """Draw one line per name.

    Args:
        series: x and y by name; a y that is NaN leaves a gap.
        xlabel: label of the horizontal axis.
        ylabel: label of the vertical axis.
        stars: one point to mark on some of the lines (the best epoch, say).
        ticks: places of x to label; None lets matplotlib choose.
        bound: a level to mark; the vertical axis then starts at 0.
        size: width and height in inches.
        ids: prefix of every id in the SVG, so that a page can hold several figures.
    """
    with style.look(page=True):
        figure, axes = _axes(xlabel, ylabel, series, size)
        handles = []
        for index, (name, (x, y)) in enumerate(series.items()):
            handles += axes.plot(
                x,
                y,
                DASHES[index // len(COLOURS) % len(DASHES)],
                color=style.colour(index),
                linewidth=1.8,
                marker=MARKERS[index % len(MARKERS)],
                markersize=4.5,
                markevery=max(1, len(x) // POINTS),
                gid=f"series-{index}",
            )
            if stars and name in stars:
                axes.plot(
                    *stars[name],
                    "*",
                    color=style.colour(index),
                    markersize=13,
                    clip_on=False,
                    gid=f"star-{index}",
                )
        if bound is not None:
            axes.set_ylim(0, 1.12 * max(axes.dataLim.y1, bound))
            axes.locator_params(axis="y", nbins=4)
            axes.axhline(bound, color=PAGE_INK, linestyle=(0, (5, 3)), linewidth=1.2, gid="bound")
            beside = axes.get_yaxis_transform()
            axes.text(1.02, bound, f"bound\n{bound:g}", transform=beside, va="center")
        if ticks is not None:
            axes.set_xticks(list(ticks))
        else:
            axes.xaxis.get_major_locator().set_params(integer=True)
        style.legend(figure, handles, _legend_names(series))
        return _svg(figure, ids)


def bars(
    groups: Sequence[str],
    series: Mapping[str, Sequence[float]],
    ylabel: str,
    *,
    ids: str = "figure",
) -> str:
    """Draw bars side by side: one cluster per group, one bar per name.

    Args:
        groups: labels of the clusters.
        series: heights by name, one per group.
        ylabel: label of the vertical axis.
        ids: prefix of every id in the SVG.
    """
    with style.look(page=True):
        figure, axes = _axes("", ylabel, series)
        width = 0.8 / max(len(series), 1)
        handles = []
        for index, values in enumerate(series.values()):
            places = [g + index * width - 0.4 + width / 2 for g in range(len(groups))]
            hatch = HATCHES[index // len(COLOURS) % len(HATCHES)]
            drawn = axes.bar(places, values, width * 0.9, color=style.colour(index), hatch=hatch)
            for bar in drawn:
                bar.set_gid(f"series-{index}")
            handles.append(drawn)
        axes.set_xticks(range(len(groups)), groups)
        axes.grid(visible=False, axis="x")
        style.legend(figure, handles, _legend_names(series))
        return _svg(figure, ids)


def _axes(
    xlabel: str, ylabel: str, series: Mapping[str, Any], size: tuple[float, float] = SIZE
) -> tuple[Figure, Any]:
    names, (width, height) = _legend_names(series), size
    rows = -(-len(names) // style.legend_columns(names, width))
    figure = Figure(figsize=(width, height + 0.23 * rows), layout="constrained")
    figure.patch.set_visible(False)
    axes = figure.add_subplot()
    axes.patch.set_visible(False)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    return figure, axes


def _legend_names(series: Mapping[str, Any]) -> list[str]:
    """One series alone needs no legend."""
    return [style.short(name) for name in series] if len(series) > 1 else []


def _svg(figure: Figure, ids: str) -> str:
    file = io.StringIO()
    with warnings.catch_warnings():
        # matplotlib only guesses the width of such a letter; the browser draws it in its own font.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        unwanted = dict.fromkeys(("Date", "Creator", "Type", "Format"))
        figure.savefig(file, format="svg", metadata=unwanted)
    root = ElementTree.fromstring(file.getvalue())
    for parent in list(root.iter()):
        # A style sheet inside would apply to the whole page.
        for child in [c for c in parent if c.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style")]:
            parent.remove(child)
    linked = [(e.get(_LINK, ""), e.get("clip-path", ""), e.get("style", "")) for e in root.iter()]
    used = set(re.findall(r"#(\w+)", " ".join(chain.from_iterable(linked))))
    for element in root.iter():
        element.tag = element.tag.removeprefix(f"{{{_SVG}}}")
        element.attrib.update(_attributes(element, used, ids))
        element.attrib.pop(_LINK, None)
        name = element.get("id", "")
        if not name.startswith(f"{ids}-"):
            element.attrib.pop("id", None)
    for size in ("width", "height", "version"):
        root.attrib.pop(size, None)
    root.set("xmlns", _SVG)
    root.set("style", "stroke-linejoin: round; stroke-linecap: butt")
    return ElementTree.tostring(root, encoding="unicode")


def _attributes(element: ElementTree.Element, used: set[str], ids: str) -> dict[str, str]:
    """The attributes of an element that change: ids, links to them, colours and fonts."""
    found = {}
    name = element.get("id", "")
    if name in used:
        found["id"] = f"{ids}-{name}"
    elif name.startswith(("series-", "star-")) or name == "bound":
        found["class"] = name
    if _LINK in element.attrib:
        found["href"] = f"#{ids}-{element.attrib[_LINK][1:]}"
    if "clip-path" in element.attrib:
        found["clip-path"] = element.attrib["clip-path"].replace("#", f"#{ids}-")
    if "style" in element.attrib:
        css = re.sub(r"url\(#", f"url(#{ids}-", element.attrib["style"])
        css = re.sub(r"font(-size)?: ([\d.]+px)[^;]*", r"font-size: \2", css)
        css = re.sub(r"font-family: [^;]*; ?", "", css)
        css = css.replace(PAGE_INK, "currentColor")
        for index, colour in enumerate(COLOURS):
            css = css.replace(colour, f"var(--series-{index}, {colour})")
        found["style"] = css
    return found
