"""Every benchmark can be imported as the library is today, and says what it does."""

from __future__ import annotations

import sys

import pytest
from programs import NAMES, program


@pytest.mark.parametrize("name", NAMES)
def test_every_benchmark_shows_its_help(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if name == "tune":
        pytest.importorskip("optuna", reason="the search needs the extra `tune`")
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        program(name).main()
    assert ended.value.code == 0
    assert f"usage: {name}.py" in capsys.readouterr().out
