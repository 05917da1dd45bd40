"""Writing files and folders completely or not at all, and by one process at a time."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from modalign.errors import RunError
from modalign_serve.artifact.leftovers import part_of, swap, tidy

__all__ = ["LOCK", "held", "replace_folder", "tidy", "write_aside", "write_folder_aside"]

NEARLY_FULL = 2**16
"""Free bytes below which a write that failed is taken to have failed for lack of space."""
LOCK = ".lock"
"""Name of the lock file in a folder."""


@contextmanager
def write_aside(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it replaces `path`.

    If the block raises, `path` is unchanged and the temporary file is removed. What a killed
    process left of an earlier write is removed as well.

    Raises:
        OSError: the disk is full or read-only, with the name of the file, whatever class of error
            the writing library has for it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    tidy(path)
    aside = part_of(path)
    try:
        with _system_errors(path):
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
    with _folder_beside(folder) as aside:
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


@contextmanager
def replace_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder beside `folder`; on success it replaces all of `folder`.

    If the block raises, `folder` is unchanged. Between the two renames at the end the old folder
    has another name for a moment; if the process is killed there, `tidy` puts it back.
    """
    try:
        with _folder_beside(folder) as aside:
            yield aside
            swap(aside, folder)
    except (KeyboardInterrupt, OSError) as error:
        error.add_note(f"{folder} is as it was before")
        raise


@contextmanager
def _folder_beside(folder: Path) -> Iterator[Path]:
    """A new folder beside `folder`, removed at the end if it is still there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    tidy(folder)
    aside = part_of(folder)
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        with _system_errors(folder):
            yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _system_errors(path: Path) -> Iterator[None]:
    """A library's own error about a full or read-only disk, as an OSError that names the file."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise
    except Exception as error:
        number = _errno(error, path)
        if number is None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def _errno(error: Exception, path: Path) -> int | None:
    """The system's number behind another error: Rust states it, torch leaves a full disk."""
    stated = re.search(r"os error (\d+)|Os \{ code: (\d+)", str(error))
    if stated is not None:
        return int(stated.group(1) or stated.group(2))
    if isinstance(error, RuntimeError):
        with suppress(OSError):
            return errno.ENOSPC if shutil.disk_usage(path.parent).free < NEARLY_FULL else None
    return None


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
