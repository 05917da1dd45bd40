"""What the command lines print: widths of tables."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from modalign_serve.command import terminal

LONG, SHORT = "a title of more than thirty characters", "a short title"


@pytest.mark.parametrize(
    ("width", "expected"),
    [
        # 12 for the margins: the short column keeps its 13, the long one gets what is left.
        (60, {0: 38, 1: 13}),
        (50, {0: 31, 1: 13}),
        # Both are longer than half of what is there.
        (30, {0: 12, 1: 12}),
        (10, {0: 8, 1: 8}),
    ],
)
def test_a_column_leaves_what_it_does_not_need_to_the_others(
    width: int, expected: dict[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "out", Console(file=io.StringIO(), width=width))
    assert terminal._room(["one", "two"], [[LONG, SHORT]], cut=(0, 1)) == expected
    shown = terminal.table("", ["one", "two"], [[LONG, SHORT]], cut=(0, 1))
    terminal.out.print(shown)
    text = terminal.out.file.getvalue()  # type: ignore[attr-defined]
    assert (LONG in text, SHORT in text) == (width >= 60, width >= 50)
