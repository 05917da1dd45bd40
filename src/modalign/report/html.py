"""Self-contained HTML files from the templates of this folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2

from modalign.core.files import write_aside
from modalign.errors import DataError


def render(template: str, **values: Any) -> str:
    """The text of a page; all values are escaped.

    Args:
        template: file name in this folder.
        values: by the names that the template uses.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(template).render(**values)


def check_target(out: Path) -> None:
    """Refuse a place where no file can be written, before any work is done.

    Raises:
        DataError: `out` is a folder, or lies below a file.
    """
    if out.is_dir():
        raise DataError("a file to write the page to", f"the folder {out}", "name a file")
    check_above(out)


def check_above(out: Path) -> None:
    """Refuse a path below a file.

    Raises:
        DataError: a parent of `out` is a file.
    """
    above = next(one for one in out.absolute().parents if one.exists())
    if not above.is_dir():
        raise DataError(f"a folder for {out.name}", f"the file {above}", "choose another place")


def save(out: Path, html: str) -> Path:
    """Write a page, replacing an earlier one only when it is complete."""
    with write_aside(out) as aside:
        aside.write_text(html, encoding="utf-8")
    return out
