"""What the sources share: opening, decoding, and naming the line where a table goes wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

import polars as pl

from modalign.errors import DataError

BLOCK = 1 << 20
Schema = Mapping[str, type[pl.DataType] | pl.DataType]


def one_file(folder: Path, pattern: str, what: str) -> Path:
    """The single file of `folder` that matches `pattern`.

    Raises:
        DataError: the folder is missing, or holds none or several such files.
    """
    if not folder.is_dir():
        raise DataError(
            f"a folder with {what}",
            f"{folder}, which {'is a file' if folder.is_file() else 'does not exist'}",
            "check the path for typing errors",
        )
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        names = ", ".join(p.name for p in found[:4]) or "none"
        raise DataError(
            f"exactly one {pattern} in {folder}", names, f"keep one data set to a folder: {what}"
        )
    return found[0]


def read_text(path: Path) -> str:
    r"""The whole file as text: UTF-8, or Latin-1 where it is not valid UTF-8.

    Lines end in `\n`, whatever they ended in before.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"a readable file {path.name}", f"{path}: {error.strerror}", "check path and rights"
        ) from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    return text.replace("\r\n", "\n")


def read_lines(path: Path) -> list[str]:
    r"""Lines of a text file, split at `\n` only; blank lines at the end are left off.

    `str.splitlines` would also split at characters such as U+0085, which old files contain.
    """
    return read_text(path).rstrip("\n").split("\n")


def header(path: Path, separator: str) -> list[str]:
    """Column names of a table's first line.

    Raises:
        DataError: the file is missing or empty.
    """
    try:
        with path.open("rb") as file:
            first = file.readline().decode("utf-8-sig", "replace").rstrip("\r\n")
    except OSError as error:
        raise DataError(
            f"a readable file {path.name}", f"{path}: {error.strerror}", "check path and rights"
        ) from error
    if not first.strip():
        raise DataError(f"a header line in {path}", "an empty file", "give the file its content")
    return first.split(separator)


def sniff(path: Path) -> str:
    """The separator of a table's first line: a tab where there is one, otherwise a comma."""
    return "\t" if len(header(path, "\t")) > 1 else ","


def check_columns(path: Path, columns: list[str], needed: Iterable[str], separator: str) -> None:
    """Refuse a table that lacks a needed column, and say so where the separator is the reason."""
    missing = [name for name in needed if name not in columns]
    if not missing:
        return
    called = {"\t": "tab", ",": "comma", ";": "semicolon", " ": "space"}
    fix = f"name the column{'s'[: len(missing) - 1]} {', '.join(missing)} in the first line"
    if len(columns) == 1:
        other = [word for sign, word in called.items() if sign != separator and sign in columns[0]]
        if other:
            fix = f"separate columns by a {called[separator]}, not by a {other[0]}"
    raise DataError(
        f"columns {', '.join(needed)} separated by a {called[separator]} in {path}, line 1",
        f"columns {', '.join(map(repr, columns[:8]))}",
        fix,
    )


def read_table(path: Path, separator: str, schema: Schema, text: str = "utf8") -> pl.DataFrame:
    """The columns of `schema`, in its types; nulls and unreadable cells are refused.

    The fast path parses straight into the types. Only where that fails is the file read once
    more as text, to name the line and column at fault.

    Raises:
        DataError: a cell is empty or not of its column's type, or a line has too many cells.
    """
    options = {
        "separator": separator,
        "columns": list(schema),
        "quote_char": '"' if separator == "," else None,
        "encoding": text,
    }
    try:
        frame = pl.read_csv(path, schema_overrides=dict(schema), **options).select(*schema)  # type: ignore[arg-type]
        if not sum(frame.null_count().row(0)):
            if separator == "\t":
                _refuse_more_cells(path, separator, len(frame))
            return frame
    except (pl.exceptions.PolarsError, OSError):
        pass
    try:
        cells = pl.read_csv(path, infer_schema=False, **options)  # type: ignore[arg-type]
    except (pl.exceptions.PolarsError, OSError) as error:
        raise ragged(path, separator, error) from error
    for name, dtype in schema.items():
        parsed = cells[name].cast(pl.Utf8).str.strip_chars().cast(dtype, strict=False)
        if parsed.null_count():
            row = int(parsed.is_null().arg_max() or 0)
            kind = "a whole number" if dtype in (pl.Int64, pl.Int32) else "a value"
            kind = "a number" if dtype in (pl.Float32, pl.Float64) else kind
            got = cells[name][row]
            raise DataError(
                f"{kind} in column {name!r} of {path}",
                f"{'an empty cell' if got is None else repr(got)} in line {row + 2}",
                "mend or remove that line",
            )
    return cells.select(
        cells[name].str.strip_chars().cast(dtype).alias(name) for name, dtype in schema.items()
    )


def _refuse_more_cells(path: Path, separator: str, n_rows: int) -> None:
    """Refuse lines with more cells than the header, which polars lets pass unseen.

    It does where the columns wanted stand before the surplus. Counting the separators of the
    whole file is quick; lines are looked at one by one only where that count is not right.
    """
    width = len(header(path, separator)) - 1
    with path.open("rb") as file:
        found = sum(
            block.count(separator.encode()) for block in iter(partial(file.read, BLOCK), b"")
        )
    if found > (n_rows + 1) * width:
        raise ragged(path, separator, ValueError("more separators than the header has columns"))


def ragged(path: Path, separator: str, error: Exception) -> DataError:
    """The error for a table that cannot be split into cells, with the first line at fault."""
    lines = read_lines(path)
    width = lines[0].count(separator)
    line = next((i for i, line in enumerate(lines) if line.count(separator) > width), None)
    got = str(error).split("\n")[0]
    if line is not None:
        got = f"{lines[line].count(separator) + 1} in line {line + 1}"
    return DataError(
        f"{width + 1} cells in each line of {path}, as in its header",
        got,
        "check separators and quotes of that line",
    )


def optional_images(folder: Path, ids: pl.Series) -> list[str | None] | None:
    """Absolute paths of `folder`/<id>.jpg (.jpeg, .png, .webp); None where there is no folder."""
    if not folder.is_dir():
        return None
    kinds = (".jpg", ".jpeg", ".png", ".webp")
    found = {
        p.stem: str(p.resolve()) for p in sorted(folder.iterdir()) if p.suffix.lower() in kinds
    }
    return [found.get(one) for one in ids]
