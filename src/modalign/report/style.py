"""The style of all pictures: colours, marks, fonts, legends, and the files of a figure."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import matplotlib as mpl
import matplotlib.style
from matplotlib.figure import Figure

INK, SOFT, FAINT, GRID = "#22282d", "#6b747c", "#b9c0c6", "#e4e7ea"
PAGE_INK = "#808890"
"""Stands for the text colour of the page in figures made with `look(page=True)`."""
# Okabe and Ito's colours, which colour-blind readers can distinguish, and two more at the end.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#999999", "#b8a800")
MARKERS = "os^DvPXd"
DASHES = ("-", "--", ":", "-.")
HATCHES = ("", "//", "..", "xx")
SIZE = 10.0
"""Size of all text, in points."""
LONGEST = 44
"""Characters of a name in a legend."""

_STYLE = {
    "svg.hashsalt": "modalign",
    "text.parse_math": False,
    "font.size": SIZE,
    "axes.titlesize": SIZE,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": SOFT,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "hatch.linewidth": 0.8,
    "legend.frameon": False,
    "savefig.dpi": 200,
}
_ON_A_PAGE = {
    # A browser's letters may be wider than matplotlib's.
    "axes.labelpad": 8.0,
    **{key: PAGE_INK for key, value in _STYLE.items() if value in (INK, SOFT, GRID)},
    "grid.alpha": 0.25,
    "svg.fonttype": "none",
}


def look(page: bool = False) -> AbstractContextManager[None]:
    """A context in which figures are made and saved in this style, whatever the user's own is.

    Args:
        page: the figure becomes part of a page, which decides on its ink and fonts.
    """
    context: AbstractContextManager[None] = mpl.style.context(
        ["default", _STYLE, _ON_A_PAGE if page else {}]
    )
    return context


def colour(place: int) -> str:
    """The colour of the series at a place; colours repeat after the last one."""
    return COLOURS[place % len(COLOURS)]


def short(name: str) -> str:
    """A run's name on one line; the middle of a long name is left out.

    Example:
        >>> short("runs/" + "x" * 60 + "/seed-7")
        'runs/xxxxxxxxxxxxxxxx…xxxxxxxxxxxxxxx/seed-7'
    """
    name = " ".join(name.split())
    half = LONGEST // 2
    return name if len(name) <= LONGEST else f"{name[: half - 1]}…{name[-half:]}"


def legend_columns(names: Sequence[str], width: float) -> int:
    """Number of columns of a legend in a figure of this width in inches."""
    longest = max(map(len, names), default=1)
    return max(1, min(len(names), int(72 * width / (44 + 0.57 * SIZE * longest))))


def legend(figure: Figure, handles: Sequence[Any], names: Sequence[str]) -> None:
    """Put a legend above the axes; without names there is none.

    Args:
        figure: the figure.
        handles: lines, bars or dots.
        names: text of each handle.
    """
    if not names:
        return
    # Texts are set afterwards: matplotlib leaves out a name with a leading underscore.
    made = figure.legend(
        handles,
        [str(place) for place in range(len(names))],
        loc="outside upper left",
        ncols=legend_columns(names, figure.get_figwidth()),
    )
    for text, name in zip(made.get_texts(), names, strict=True):
        text.set_text(name)


def files(figure: Figure) -> dict[str, bytes]:
    """The figure as `png` and as `svg`; equal figures give equal bytes."""
    found = {}
    with look(), warnings.catch_warnings():
        # A letter of a run's name that the font lacks is drawn as a box.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        # Laid out once for both.
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
        for kind, unwanted in (("png", ("Software",)), ("svg", ("Date", "Creator"))):
            file = io.BytesIO()
            figure.savefig(file, format=kind, metadata=dict.fromkeys(unwanted))
            found[kind] = file.getvalue()
    return found
