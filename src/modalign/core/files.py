"""Writing so that nothing is ever half written, or written by two processes at once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from modalign.errors import RunError

LOCK = ".lock"
"""Name of the lock file in a folder that a process holds."""


@contextmanager
def write_aside(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it takes the place of `path`.

    Where the block raises, `path` is as it was and the temporary file is gone.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield aside
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def write_folder_aside(folder: str | Path, keep: tuple[str, ...] = ()) -> Iterator[Path]:
    """Yield a temporary folder beside `folder`; on success its entries take their places.

    Args:
        folder: the folder to write; made where it does not exist.
        keep: sub-folders of an existing `folder` whose files stay unless written anew; every
            other entry of an existing folder that the block does not write also stays.
    """
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        yield aside
        if not folder.exists():
            os.replace(aside, folder)
            return
        for entry in sorted(aside.iterdir()):
            target = folder / entry.name
            if entry.is_dir() and entry.name in keep and target.is_dir():
                for file in entry.iterdir():
                    os.replace(file, target / file.name)
            else:
                if target.is_dir():
                    shutil.rmtree(target)
                os.replace(entry, target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def held(folder: Path, work: str) -> Iterator[None]:
    """Make a folder and keep other processes out of it; a process that dies releases it.

    Args:
        folder: to hold.
        work: what a process does there, for the message: "training", "sweep".

    Raises:
        RunError: another process holds the folder, or it is a file.
    """
    if folder.is_file():
        raise RunError(f"a folder for the {work}", f"the file {folder}", "choose another name")
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise RunError(
            f"a folder that no other process is writing into, for the {work}",
            f"{folder}, in which another {work} is running",
            "wait until it has ended, or choose another folder",
        ) from error
    try:
        yield
    finally:
        # Removed while it is held: no other process can have locked this file.
        (folder / LOCK).unlink(missing_ok=True)
        lock.release()
