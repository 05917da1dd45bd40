"""Structured logs: one JSON object per line on standard error.

Lines of requests are gathered for a moment, as a write for each would cost more than the request.
A warning or an error is written at once, with all lines before it.
"""

from __future__ import annotations

import logging
import sys
import time
import traceback
from typing import Any, BinaryIO

import msgspec

LEVELS = ("debug", "info", "warning", "error")
_FULL = 64 * 1024
_encode = msgspec.json.Encoder(enc_hook=str).encode


class JsonLog:
    """Lines of JSON with a time, a level and an event.

    Args:
        level: minimum level that is written.
        out: where to write; None: standard error.

    Example:
        >>> import io
        >>> out = io.BytesIO()
        >>> log = JsonLog("info", out)
        >>> log.debug("unseen"); log.warning("slow", seconds=2)
        >>> line = msgspec.json.decode(out.getvalue())
        >>> line["level"], line["event"], line["seconds"]
        ('warning', 'slow', 2)
    """

    def __init__(self, level: str = "info", out: BinaryIO | None = None) -> None:
        self._least = LEVELS.index(level)
        self._out = out
        self._held = bytearray()

    @property
    def requests(self) -> bool:
        """Whether to write a line for each request."""
        return self._least <= 1

    def debug(self, event: str, **fields: Any) -> None:
        """For developers only."""
        self._write(0, event, fields)

    def info(self, event: str, **fields: Any) -> None:
        """A regular event."""
        self._write(1, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """An event that needs attention some time."""
        self._write(2, event, fields)

    def error(self, event: str, **fields: Any) -> None:
        """An event that needs attention now."""
        self._write(3, event, fields)

    def flush(self) -> None:
        """Write the lines that are held."""
        if self._held:
            lines, self._held = bytes(self._held), bytearray()
            out = self._out or sys.stderr.buffer
            out.write(lines)
            out.flush()

    def _write(self, level: int, event: str, fields: dict[str, Any]) -> None:
        if level < self._least:
            return
        line = {"time": round(time.time(), 3), "level": LEVELS[level], "event": event, **fields}
        self._held += _encode(line)
        self._held += b"\n"
        if level >= 2 or len(self._held) > _FULL:
            self.flush()


class ToLog(logging.Handler):
    """Passes records of Python's `logging` to a `JsonLog`."""

    def __init__(self, log: JsonLog) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; a traceback becomes a field."""
        fields: dict[str, Any] = {"logger": record.name, "message": record.getMessage().strip()}
        if record.exc_info and record.exc_info[1] is not None:
            fields["traceback"] = "".join(traceback.format_exception(record.exc_info[1]))
        write = self._log.error if record.levelno >= logging.ERROR else self._log.warning
        write("library", **fields)
