"""A small shop, prepared and trained on, and a way to call the command line in-process."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from calling import Cli, Result

from modalign.cli import main
from modalign.experiments.fit import fit
from modalign.testing.toy import toy_dataset


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """`cli("data", "info", folder)`: exit code, standard output and standard error."""

    def call(*words: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["modalign", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main.run()
        told = capsys.readouterr()
        code = stopped.value.code
        return Result(code if isinstance(code, int) else 1, told.out, told.err)

    return call


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data/toy (prepared, with titles and words), runs/bpr, runs/pop, and good.csv."""
    root = tmp_path_factory.mktemp("built")
    toy = toy_dataset(seed=1)
    words = pl.Series(["red shoe" if t else "blue [hat]" for t in toy.item_table["taste"]])
    table = toy.item_table.with_columns(
        title=words + " no. " + toy.items.series, description=words + " of fine make"
    )
    data = replace(toy, item_table=table).save(root / "data" / "toy")
    fit(data, "bpr", out=root / "runs" / "bpr", epochs=2, ks=(5, 10))
    fit(data, "popularity", out=root / "runs" / "pop", ks=(5, 10))
    rows = [
        f"u{u},i{(u * 3 + j) % 12},{1 + j % 5},{99 * u + j}" for u in range(12) for j in range(8)
    ]
    (root / "good.csv").write_text("\n".join(["user_id,item_id,rating,timestamp", *rows, ""]))
    return root


@pytest.fixture
def workshop(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `built` to break things in, and the working folder."""
    folder = tmp_path / "work"
    shutil.copytree(built, folder)
    monkeypatch.chdir(folder)
    return folder
