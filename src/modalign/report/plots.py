"""Figures as SVG text that reads on light and on dark pages, and with any number of names.

Ink is `currentColor`, a name's colour is `var(--series-0, #0072b2)` and so on: the page that
holds a figure decides both, and a figure alone has the fallback. Names differ by marker as well
as by colour, and from the ninth on by dashes (hatches in bars), as colours begin again.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import matplotlib.style
from matplotlib.figure import Figure

INK = "#808890"
# Okabe and Ito's colours, told apart by nearly everyone, with two more at the end.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999", "#b8a800")
MARKERS = "os^DvPXd"
DASHES = ("-", "--", ":", "-.")
HATCHES = ("", "//", "..", "xx")
POINTS = 10  # markers on a long line
LONGEST = 44  # characters of a name in a legend
WIDTH, HEIGHT = 5.6, 3.1

_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "modalign",
    "text.parse_math": False,
    "font.size": 11,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "hatch.linewidth": 0.8,
}
_SVG = "http://www.w3.org/2000/svg"
_LINK = "{http://www.w3.org/1999/xlink}href"


def lines(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    xlabel: str,
    ylabel: str,
    *,
    stars: Mapping[str, tuple[float, float]] | None = None,
    ticks: Sequence[float] | None = None,
    ids: str = "figure",
) -> str:
    """One line per name.

    Args:
        series: x and y by name; a y that is no number leaves a gap.
        xlabel: of the horizontal axis.
        ylabel: of the vertical axis.
        stars: one point to mark on some of the lines (the best epoch, say).
        ticks: places of x to label; None lets the figure choose.
        ids: what every id in the SVG begins with, so that a page can hold several.
    """
    with mpl.style.context(["default", _STYLE]):
        figure, axes = _axes(xlabel, ylabel, series)
        handles = []
        for index, (name, (x, y)) in enumerate(series.items()):
            colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
            handles += axes.plot(
                x,
                y,
                DASHES[index // len(COLOURS) % len(DASHES)],
                color=colour,
                linewidth=1.8,
                marker=marker,
                markersize=4.5,
                markevery=max(1, len(x) // POINTS),
                gid=f"series-{index}",
            )
            if stars and name in stars:
                axes.plot(*stars[name], "*", color=colour, markersize=13, gid=f"star-{index}")
        if ticks is not None:
            axes.set_xticks(list(ticks))
        else:
            axes.xaxis.get_major_locator().set_params(integer=True)
        _legend(figure, handles, list(series))
        return _svg(figure, ids)


def bars(
    groups: Sequence[str],
    series: Mapping[str, Sequence[float]],
    ylabel: str,
    *,
    ids: str = "figure",
) -> str:
    """Bars side by side: one cluster per group, one bar per name.

    Args:
        groups: labels of the clusters.
        series: heights by name, one per group.
        ylabel: of the axis.
        ids: as in `lines`.
    """
    with mpl.style.context(["default", _STYLE]):
        figure, axes = _axes("", ylabel, series)
        width = 0.8 / max(len(series), 1)
        handles = []
        for index, values in enumerate(series.values()):
            places = [g + index * width - 0.4 + width / 2 for g in range(len(groups))]
            hatch = HATCHES[index // len(COLOURS) % len(HATCHES)]
            drawn = axes.bar(
                places, values, width * 0.9, color=COLOURS[index % len(COLOURS)], hatch=hatch
            )
            for bar in drawn:
                bar.set_gid(f"series-{index}")
            handles.append(drawn)
        axes.set_xticks(range(len(groups)), groups)
        axes.grid(visible=False, axis="x")
        _legend(figure, handles, list(series))
        return _svg(figure, ids)


def _axes(xlabel: str, ylabel: str, names: Mapping[str, Any]) -> tuple[Figure, Any]:
    rows = -(-len(names) // _columns(list(names))) if len(names) > 1 else 0
    figure = Figure(figsize=(WIDTH, HEIGHT + 0.23 * rows), layout="constrained")
    figure.patch.set_visible(False)
    axes = figure.add_subplot()
    axes.patch.set_visible(False)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.set_axisbelow(True)
    axes.grid(alpha=0.25, color=INK)
    return figure, axes


def _legend(figure: Figure, handles: Sequence[Any], names: Sequence[str]) -> None:
    """Above the axes, where it hides nothing; texts are set afterwards, as a name with a leading
    underscore would be left out.
    """
    if len(names) < 2:
        return
    places = [str(index) for index in range(len(names))]
    legend = figure.legend(
        handles, places, loc="outside upper left", ncols=_columns(names), fontsize=10
    )
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_text(_short(name))


def _columns(names: Sequence[str]) -> int:
    longest = max((len(_short(name)) for name in names), default=1)
    return max(1, min(len(names), int(72 * WIDTH / (40 + 6.2 * longest))))


def _short(name: str) -> str:
    name = " ".join(name.split())
    half = LONGEST // 2
    return name if len(name) <= LONGEST else f"{name[: half - 1]}…{name[-half:]}"


def _svg(figure: Figure, ids: str) -> str:
    file = io.StringIO()
    with warnings.catch_warnings():
        # Only the width of such a letter is guessed: the browser draws it in its own font.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        nothing = dict.fromkeys(("Date", "Creator", "Type", "Format"))
        figure.savefig(file, format="svg", metadata=nothing)
    root = ElementTree.fromstring(file.getvalue())
    for parent in list(root.iter()):
        # A style sheet inside would hold for the whole page.
        for child in [c for c in parent if c.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style")]:
            parent.remove(child)
    used = set(re.findall(r"#(\w+)", " ".join(chain.from_iterable(_references(root)))))
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


def _references(root: ElementTree.Element) -> list[list[str]]:
    return [[e.get(_LINK, ""), e.get("clip-path", ""), e.get("style", "")] for e in root.iter()]


def _attributes(element: ElementTree.Element, used: set[str], ids: str) -> dict[str, str]:
    """What of an element's attributes changes: ids, links to them, colours and fonts."""
    found = {}
    name = element.get("id", "")
    if name in used:
        found["id"] = f"{ids}-{name}"
    elif name.startswith(("series-", "star-")):
        found["class"] = name
    if _LINK in element.attrib:
        found["href"] = f"#{ids}-{element.attrib[_LINK][1:]}"
    if "clip-path" in element.attrib:
        found["clip-path"] = element.attrib["clip-path"].replace("#", f"#{ids}-")
    if "style" in element.attrib:
        style = re.sub(r"url\(#", f"url(#{ids}-", element.attrib["style"])
        style = re.sub(r"font(-size)?: ([\d.]+px)[^;]*", r"font-size: \2", style)
        style = re.sub(r"font-family: [^;]*; ?", "", style)
        style = style.replace(INK, "currentColor")
        for index, colour in enumerate(COLOURS):
            style = style.replace(colour, f"var(--series-{index}, {colour})")
        found["style"] = style
    return found
