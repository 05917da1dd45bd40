"""Writing so that nothing is ever half written: aside first, then one rename."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
