"""Progress of training: one line at 80 columns, plain lines elsewhere."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from modalign.errors import ConfigError
from modalign.experiments.fit import fit
from modalign.testing.toy import toy_dataset
from modalign.train import callbacks
from modalign.train.callbacks import ProgressBar, ProgressLines, shown
from modalign.train.checkpoint import TrainState


def terminal(width: int = 80) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)


def lines_of(console: Console) -> list[str]:
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\n", console.file.getvalue())  # type: ignore[attr-defined]
    return [line.rstrip() for line in re.split(r"[\r\n]+", text) if line.strip()]


def three_epochs(callback: ProgressBar | ProgressLines, total: int = 1000) -> None:
    state = TrainState()
    callback.on_start(state, total)
    for epoch, value in enumerate((0.1, 0.3, 0.2), 1):
        state = replace(state, epoch=epoch)
        if value > state.best_metric:
            state = replace(state, best_metric=value, best_epoch=epoch)
        callback.on_epoch({"epoch": epoch, "valid/recall@20": value}, state)
    callback.on_end(state)


@pytest.mark.parametrize("width", [80, 60, 50, 40])
def test_the_bar_is_one_line_that_fits(width: int) -> None:
    console = terminal(width)
    three_epochs(ProgressBar(console, "cm3-only-image"))
    last = lines_of(console)[-1]
    assert len(last) <= width
    assert last.startswith("cm3-only-image epoch    3/1000" if width > 40 else "cm3-only-")
    assert "left" in last
    assert "…" not in last
    if width == 80:
        assert "recall@20 0.2000, best 0.3000" in last
        assert "╌" * callbacks.SHORTEST_BAR in last


def test_a_short_name_leaves_room_for_the_epoch_of_the_best() -> None:
    console = terminal()
    three_epochs(ProgressBar(console, "bpr"), 9)
    assert lines_of(console)[-1].endswith("recall@20 0.2000, best 0.3000 (epoch 2)")


def test_a_log_gets_plain_lines_some_seconds_apart() -> None:
    console = Console(file=io.StringIO(), width=80)
    three_epochs(ProgressLines(console, "bpr", every=1000))
    told = lines_of(console)
    assert told[0].startswith("bpr: epoch 1 of 1000, recall@20 0.1000, best 0.1000 (epoch 1), ")
    assert told[1].startswith("bpr: epoch 3 of 1000, recall@20 0.2000, best 0.3000 (epoch 2), ")
    assert len(told) == 2
    console = Console(file=io.StringIO(), width=80)
    three_epochs(ProgressLines(console, "bpr", every=0))
    assert len(lines_of(console)) == 3


def test_what_is_shown_where() -> None:
    log = Console(file=io.StringIO())
    kinds = {
        (progress, place): [type(one) for one in shown(progress, "bpr", console)]
        for progress in (True, False, "auto", "bar", "lines")
        for place, console in (("terminal", terminal()), ("log", log))
    }
    bar, lines = [ProgressBar], [ProgressLines]
    assert kinds == {
        (True, "terminal"): bar, (True, "log"): lines,
        (False, "terminal"): [], (False, "log"): [],
        ("auto", "terminal"): bar, ("auto", "log"): [],
        ("bar", "terminal"): bar, ("bar", "log"): bar,
        ("lines", "terminal"): lines, ("lines", "log"): lines,
    }  # fmt: skip
    with pytest.raises(ConfigError, match="'loud'"):
        shown("loud", "bpr")  # type: ignore[arg-type]


def test_from_python_it_is_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    data = toy_dataset()
    for progress in ("auto", False):
        fit(data, "bpr", epochs=2, ks=(5,), progress=progress)
        assert capsys.readouterr() == ("", "")
    fit(data, "bpr", epochs=2, ks=(5,), progress=True)
    told = capsys.readouterr()
    assert told.out == ""
    assert "bpr: epoch 2 of 2, ndcg@20" in told.err  # of 40 items few are left to rank
