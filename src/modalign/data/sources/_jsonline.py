"""One line of a JSON-lines file, with the line named where it is broken."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

from modalign.errors import DataError


def parse_line(path: Path, number: int, line: bytes) -> dict[str, Any]:
    """One line as a dictionary: JSON, or else a Python literal as in the 2014 metadata.

    Raises:
        DataError: it is neither; file and line are named.
    """
    try:
        record = json.loads(line)
    except ValueError as wrong:
        try:
            record = ast.literal_eval(line.decode("utf-8", "replace").strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
            raise DataError(
                f"a JSON object in each line of {path}",
                f"line {number}, {line[:60].decode('utf-8', 'replace')!r}: {wrong}",
                "mend or remove that line",
            ) from error
    if not isinstance(record, dict):
        raise DataError(
            f"a JSON object in each line of {path}",
            f"a {type(record).__name__} in line {number}",
            "mend or remove that line",
        )
    return record
