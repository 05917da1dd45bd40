"""What the tests of the command line share: its answer, and what a folder held."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Result:
    """Exit code, standard output and standard error of one call."""

    code: int
    out: str
    err: str


Cli = Callable[..., Result]


def snapshot(folder: Path) -> dict[str, str]:
    """Every file and folder under `folder` with a hash of what it holds."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else "folder"
        for path in sorted(folder.rglob("*"))
    }
