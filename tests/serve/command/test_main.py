"""`modalign-serve`, called in the test's own process as a shell would call it."""

from __future__ import annotations

import builtins
import json
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from modalign_serve import __version__
from modalign_serve.artifact.sample import small_artifact
from modalign_serve.artifact.write import write_artifact
from modalign_serve.command import commands, main
from modalign_serve.errors import ArtifactError, ConfigError
from modalign_serve.ranker.foldin import session
from modalign_serve.ranker.index import faiss_module
from modalign_serve.stores.export import to_parquet
from modalign_serve.stores.stores import open_store

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """`call("key", "till")`: exit code, standard output and standard error."""

    def called(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["modalign-serve", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main.run()
        shown = capsys.readouterr()
        return int(stopped.value.code or 0), shown.out, shown.err

    return called


@pytest.fixture
def lean(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without the optional packages."""
    real = builtins.__import__
    missing = ("faiss", "onnxruntime", "pyarrow", "psycopg")

    def only_lean(name: str, *words: Any, **named: Any) -> Any:
        if name.partition(".")[0] in missing:
            raise ImportError(name)
        return real(name, *words, **named)

    monkeypatch.setattr(builtins, "__import__", only_lean)


def test_the_version_and_the_help(call: Call) -> None:
    assert call("--version") == (0, f"modalign-serve {__version__}\n", "")
    code, out, _ = call("--help")
    assert code == 0
    for name in ("run", "bench", "key", "feedback"):
        assert f" {name} " in out
    assert call()[0] == 2


@pytest.mark.parametrize(
    ("words", "facts"),
    [
        (("rnu",), ("did you mean 'run'?",)),
        (("run", "nowhere"), ("manifest.json", "nowhere")),
        (("run", "x", "--prot", "1"), ("'--prot'", "did you mean '--port'?")),
        (("key", "till"), ("--keys",)),
        (("bench", "x", "--users", "0"), ("--users",)),
    ],
)
def test_a_mistake_ends_with_three_facts(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...], facts: tuple[str, ...],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    code, out, err = call(*words)
    assert (code, out) == (2, "")
    for fact in ("Error: expected ", "got ", "To fix: ", *facts):
        assert fact in err
    assert "Traceback" not in err


def test_a_key(call: Call, tmp_path: Path) -> None:
    code, out, err = call("key", "till", "--keys", tmp_path / "keys", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["role"] == "use"


def test_an_encoder_needs_modalign(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find(name: str) -> ModuleSpec | None:
        assert name == "modalign"
        return None

    monkeypatch.setattr(commands, "find_spec", find)
    folder = write_artifact(tmp_path / "shop", small_artifact())
    code, _, err = call("run", folder, "--encoder", "--port", "0")
    assert code == 2
    assert 'pip install "modalign[encoders]"' in err


@pytest.mark.usefixtures("lean")
def test_what_is_missing_is_named_with_its_extra(tmp_path: Path) -> None:
    for extra, error, ask in (
        ("index", ArtifactError, faiss_module),
        ("onnx", ArtifactError, lambda: session(b"")),
        ("parquet", ConfigError, lambda: to_parquet("f.sqlite", tmp_path / "f.parquet")),
        ("postgresql", ConfigError, lambda: open_store("postgresql://u@h/d")),
    ):
        with pytest.raises(error) as raised:
            ask()  # type: ignore[operator]
        assert raised.value.fix == f'pip install "modalign-serve[{extra}]"'
    assert not list(tmp_path.iterdir())
