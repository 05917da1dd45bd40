"""Writing whole or not at all: full disks, killed processes and what they leave."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from modalign.core import files
from modalign.core.files import replace_folder, write_aside, write_folder_aside
from modalign.data.dataset import Dataset
from modalign.testing.toy import toy_dataset


@pytest.fixture
def dead() -> int:
    """The number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_an_old_folder_of_a_killed_import_is_put_back_when_the_data_are_read(
    tmp_path: Path, dead: int
) -> None:
    toy_dataset().save(tmp_path / "shop")
    fingerprint = Dataset.load(tmp_path / "shop").fingerprint
    os.replace(tmp_path / "shop", tmp_path / f".shop.{dead}.old")
    (tmp_path / f".shop.{dead}.part").mkdir()
    assert Dataset.load(tmp_path / "shop").fingerprint == fingerprint
    assert [path.name for path in tmp_path.iterdir()] == ["shop"]


@pytest.mark.parametrize("writing", [replace_folder, write_folder_aside])
def test_left_overs_of_the_dead_go_and_those_of_the_living_stay(
    writing, tmp_path: Path, dead: int
) -> None:
    for name in ("shop", f".shop.{dead}.part", f".shop.{dead}.old", f".shop.{os.getppid()}.part"):
        (tmp_path / name).mkdir()
    (tmp_path / ".shop-2.1.part").mkdir()  # of another folder
    with writing(tmp_path / "shop") as aside:
        (aside / "new").write_text("1")
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"shop", f".shop.{os.getppid()}.part", ".shop-2.1.part"}
    assert (tmp_path / "shop" / "new").read_text() == "1"


def test_left_overs_of_a_file_go(tmp_path: Path, dead: int) -> None:
    (tmp_path / f".last.pt.{dead}.part").write_text("half")
    with write_aside(tmp_path / "last.pt") as aside:
        aside.write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


@pytest.mark.parametrize("raised", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left")])
def test_a_folder_that_is_not_replaced_is_as_it_was_and_that_is_said(
    raised: BaseException, tmp_path: Path
) -> None:
    shop = tmp_path / "shop"
    shop.mkdir()
    (shop / "old").write_text("1")

    def fail() -> None:
        with replace_folder(shop) as aside:
            (aside / "new").write_text("2")
            raise raised

    with pytest.raises(type(raised)) as caught:
        fail()
    assert caught.value.__notes__ == [f"{shop} is as it was before"]
    assert [path.name for path in shop.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [shop]


def save_torch(path: Path) -> None:
    torch.save(torch.zeros(2**20), path)


def save_tensors(path: Path) -> None:
    save_file({"a": torch.zeros(2**20)}, path)


def save_text(path: Path) -> None:
    with path.open("wb") as file:
        file.write(b"0" * 2**22)


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files as Linux does")
@pytest.mark.parametrize("writer", ["save_torch", "save_tensors", "save_text"])
def test_every_library_runs_out_of_space_in_the_same_words(writer: str, tmp_path: Path) -> None:
    # A limit on the size of files stands for a full disk: both fail in the middle of a write.
    code = f"""
import resource, signal, shutil, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_files
from pathlib import Path
from modalign.core.files import write_aside
test_files.files.NEARLY_FULL = 2**80  # the disk itself is not full
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, 2**16))
target = Path({str(tmp_path / "weights")!r})
try:
    with write_aside(target) as aside:
        test_files.{writer}(aside)
except OSError as error:
    full, name = error.errno in (27, 28), Path(error.filename).name.strip(".")
    print(full, name, list(target.parent.iterdir()))
"""
    got = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert got.stdout.split()[0] == "True", got.stderr
    assert got.stdout.split()[1].startswith("weights")
    assert got.stdout.strip().endswith("[]")


def test_another_error_of_a_library_is_left_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="own business"), write_aside(tmp_path / "a"):
        raise RuntimeError("own business")
    assert files.NEARLY_FULL < 2**20
