"""What the command lines print: widths of tables, and characters that a terminal would obey."""

from __future__ import annotations

import io
import json

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


def test_what_a_terminal_obeys_is_escaped_everywhere(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = "".join(map(chr, [*range(32), *range(127, 160), 0x202E, 0x2066, 0x61C, 0x200F]))
    console = Console(file=io.StringIO(), width=2000)
    terminal.say(bad, console)
    console.print(terminal.table(bad, [bad, "b"], [[bad, terminal.plain(bad)]]))
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    assert set(printed) & set(bad) <= set("\n\t")
    assert printed.count("\\x1b") == printed.count("\\u202e") == 5
    terminal.print_json({bad: bad})
    text = capsys.readouterr().out
    assert set(text) & set(bad) == {"\n"}
    assert json.loads(text) == {bad: bad}
    # What people write stays, in any script.
    assert terminal.printable("Ärger, 日本 👩‍👩‍👧, שלום") == "Ärger, 日本 👩‍👩‍👧, שלום"
