"""Writing files and folders completely or not at all, and by one process at a time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from modalign.errors import RunError

LOCK = ".lock"
"""Name of the lock file in a folder."""


@contextmanager
def write_aside(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it replaces `path`.

    If the block raises, `path` is unchanged and the temporary file is removed.
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
    """Yield a temporary folder beside `folder`; on success its entries replace those of `folder`.

    Entries of an existing folder that the block does not write are kept.

    Args:
        folder: the folder to write; created if it does not exist.
        keep: sub-folders that are merged: their files are kept unless they are written again.
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
    """Create a folder and lock it; the lock of a process that dies is released.

    Args:
        folder: the folder.
        work: what the process does there, for messages: "training", "sweep".

    Raises:
        RunError: another process has locked the folder, or it is a file.
    """
    if folder.is_file():
        raise RunError(f"a folder for the {work}", f"the file {folder}", "choose another name")
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        expected = f"a folder that no other process is writing into, for the {work}"
        fix = "wait until it has ended, or choose another folder"
        raise RunError(expected, f"{folder}, in which another {work} is running", fix) from error
    try:
        yield
    finally:
        # Removed while it is held: no other process can have locked this file.
        (folder / LOCK).unlink(missing_ok=True)
        lock.release()
