"""Small tables for `repr` and for notebooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

MOST_ROWS = 30
MAIN = ("recall@20", "ndcg@20")


def main_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    """Recall and NDCG at 20, or the first two metrics.

    Example:
        >>> main_metrics({"recall@5": 0.1, "ndcg@5": 0.2, "map@5": 0.3})
        {'recall@5': 0.1, 'ndcg@5': 0.2}
    """
    names = [name for name in MAIN if name in metrics] or list(metrics)[:2]
    return {name: metrics[name] for name in names}


def in_words(metrics: Mapping[str, float]) -> str:
    """The main metrics in a line.

    Example:
        >>> in_words({"hit@20": 0.5, "recall@20": 0.25})
        'recall@20 0.2500'
    """
    return ", ".join(f"{name} {value:.4f}" for name, value in main_metrics(metrics).items())


def text_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A title and aligned columns; the first is aligned left, the others right.

    Args:
        title: the first line.
        columns: headings.
        rows: cells; after `MOST_ROWS` of them the number of the others is given.

    Example:
        >>> print(text_table("Two runs", ["run", "recall@20"], [["ease", "0.37"], ["bpr", "0.36"]]))
        Two runs
          run   recall@20
          ease       0.37
          bpr        0.36
    """
    shown = [list(columns), *(list(row) for row in rows[:MOST_ROWS])]
    widths = [max(len(row[place]) for row in shown) for place in range(len(columns))]
    lines = [
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in shown
    ]
    if len(rows) > MOST_ROWS:
        lines.append(f"... and {len(rows) - MOST_ROWS} more")
    return "\n  ".join([title, *lines])


def html_table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    notes: Sequence[str] = (),
) -> str:
    """The same as HTML; all texts are escaped.

    Args:
        title: above the table.
        columns: headings; none are printed if all are empty.
        rows: cells.
        notes: lines below the table.

    Example:
        >>> html_table("A <shop>", ["", ""], [["users", "3"]]).startswith("<div><b>A &lt;shop&gt;")
        True
    """
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = [
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
        for row in rows[:MOST_ROWS]
    ]
    said = list(notes)
    if len(rows) > MOST_ROWS:
        said.insert(0, f"... and {len(rows) - MOST_ROWS} more")
    return (
        f"<div><b>{escape(title)}</b><table>"
        + (f"<thead><tr>{head}</tr></thead>" if any(columns) else "")
        + f"<tbody>{''.join(body)}</tbody></table>"
        + "".join(f"<small>{escape(note)}</small><br>" for note in said)
        + "</div>"
    )
