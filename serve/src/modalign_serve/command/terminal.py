"""Tables, sentences and JSON on the terminal, for `modalign` and `modalign-serve` alike."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

out = Console()
err = Console(stderr=True)

OBEYED = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u202a-\\u202e\\u2066-\\u2069]")
"""Characters that a terminal obeys instead of showing them."""

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]


def _show_version(context: typer.Context, asked: bool) -> None:
    if asked:
        # Programs have the names of their distributions.
        name = str(context.info_name)
        say(f"{name} {version(name)}", out)
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option(
        "--version", callback=_show_version, is_eager=True, help="Print the version and exit."
    ),
]


def program_options(version: Version = False) -> None:
    """Register it with `app.callback(help=...)`: the options that stand before a command."""


def printable(text: str, keep: str = "") -> str:
    r"""A text without characters that a terminal obeys: they are written as escapes.

    Those are control characters, and the ones that turn the direction of writing.

    Args:
        text: an id, a title, a message.
        keep: control characters that stay, such as line breaks.

    Example:
        >>> print(printable("red\x1b[31m shoe"))
        red\x1b[31m shoe
    """
    return OBEYED.sub(
        lambda found: found[0] if found[0] in keep else found[0].encode("unicode_escape").decode(),
        text,
    )


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    text = json.dumps(value, indent=2, default=str, ensure_ascii=False)
    # JSON escapes the characters below U+0020 by itself.
    sys.stdout.write(OBEYED.sub(lambda found: _json_escape(found[0]), text) + "\n")


def _json_escape(character: str) -> str:
    return character if character == "\n" else f"\\u{ord(character):04x}"


def say(text: str, console: Console = err) -> None:
    """Print a sentence as it is: ids, paths and titles are not read as markup."""
    shown = printable(text, keep="\n\t")
    console.print(shown, markup=False, highlight=False, soft_wrap=not console.is_terminal)


def plain(text: Any) -> str:
    """A cell of a table as it is: rich would read square brackets in a title as markup."""
    return escape(printable(str(text)))


def table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    numbers: Sequence[int] = (),
    cut: Sequence[int] = (),
) -> RenderableType:
    """A plain table.

    Args:
        title: printed above the table.
        columns: headings; if all are empty, no heading is printed. The first column never wraps.
        rows: cells; they are read as markup, so pass users' texts through `plain`.
        numbers: indices of numeric columns: aligned right; only their headings may wrap.
        cut: indices of columns that are shortened with an ellipsis on a narrow terminal.
    """
    made = Table(box=box.SIMPLE_HEAD, show_header=any(columns), show_edge=False)
    widths = _room(columns, rows, cut)
    for index, name in enumerate(columns):
        number = index in numbers
        cells = [Text.from_markup(str(row[index])).cell_len for row in rows] if number else []
        made.add_column(
            plain(name),
            justify="right" if number else "left",
            overflow="ellipsis" if index in cut else "fold",
            no_wrap=bool(cut) or index == 0,
            max_width=widths.get(index),
            min_width=max(cells, default=None),
        )
    for row in rows:
        made.add_row(*("" if cell is None else printable(str(cell), keep="\n") for cell in row))
    return Group(Text(printable(title), "bold"), made, "")


def _room(
    columns: Sequence[str], rows: Sequence[Sequence[Any]], cut: Sequence[int]
) -> dict[int, int]:
    """Widths of the shortened columns: what one does not need is left to the others."""
    wanted = [
        max(Text.from_markup(str(cell)).cell_len for cell in (escape(name), *cells))
        for name, *cells in zip(columns, *rows, strict=True)
    ]
    left = out.width - sum(3 + (0 if index in cut else w) for index, w in enumerate(wanted))
    widths = {}
    for done, index in enumerate(sorted(cut, key=lambda index: wanted[index])):
        widths[index] = max(min(wanted[index], left // (len(cut) - done)), 8)
        left -= widths[index]
    return widths
