"""What a killed process leaves beside a file or folder that it was replacing.

A target `NAME` is written as `.NAME.PID.part` and renamed; a folder that stood there is called
`.NAME.PID.old` for a moment. A process that is killed leaves one of the two, and `tidy` deals with
it at the next start.
"""

from __future__ import annotations

import glob
import os
import shutil
from pathlib import Path


def part_of(target: Path) -> Path:
    """Where this process writes what will become `target`."""
    return target.with_name(f".{target.name}.{os.getpid()}.part")


def old_of(target: Path) -> Path:
    """Where this process keeps what stood at `target`, while it is replaced."""
    return target.with_name(f".{target.name}.{os.getpid()}.old")


def tidy(target: Path) -> None:
    """Put back an old folder that a killed process had moved away, and remove what it left.

    What a living process writes is left alone.

    Args:
        target: the file or folder that is read or written next.

    Example:
        >>> import tempfile
        >>> home = Path(tempfile.mkdtemp())
        >>> (home / ".shop.999999999.old").mkdir()
        >>> (home / ".shop.999999999.part").mkdir()
        >>> tidy(home / "shop")
        >>> [path.name for path in home.iterdir()]
        ['shop']
    """
    name = glob.escape(target.name)
    for path in sorted(target.parent.glob(f".{name}.*.old")):
        if _lives(path) is not True:
            if target.exists():
                _remove(path)
            else:
                os.replace(path, target)
    for path in target.parent.glob(f".{name}.*.part"):
        if _lives(path) is False:
            _remove(path)


def swap(aside: Path, folder: Path) -> None:
    """Replace `folder` by `aside`; the old folder is deleted when the new one is in place.

    Args:
        aside: the complete new folder.
        folder: the place; whatever is there goes.

    Raises:
        OSError: it cannot be renamed; the old folder is put back.
    """
    old = old_of(folder)
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.replace(folder, old)
    try:
        os.replace(aside, folder)
    except OSError:
        if old.exists():
            os.replace(old, folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _lives(path: Path) -> bool | None:
    """Whether the process that made it runs; None for this one, or one of the same number."""
    number = path.name.rsplit(".", 2)[1]
    if not number.isdecimal():
        return True  # not ours
    if int(number) == os.getpid():
        return None
    if os.name == "nt":
        return True  # a signal of 0 would end the process there
    try:
        os.kill(int(number), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
