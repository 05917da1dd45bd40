"""Structured logs: one JSON object per line on standard error.

Lines of requests are gathered for a moment, as a write for each would cost more than the request.
A warning or an error is written at once, with all lines before it. A thread writes, so a pipe that
is full stops no request; what cannot be written is counted and left out.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
import traceback
from typing import Any, BinaryIO

import msgspec

LEVELS = ("debug", "info", "warning", "error")
LONGEST = 2000
"""Maximum characters of a text in a line; of a traceback ten times as many."""
_FULL = 64 * 1024
_MOST_HELD = 2**20
_STDERR = 2
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
        >>> log.debug("unseen"); log.warning("slow", seconds=2); log.flush()
        >>> line = msgspec.json.decode(out.getvalue())
        >>> line["level"], line["event"], line["seconds"]
        ('warning', 'slow', 2)
    """

    def __init__(self, level: str = "info", out: BinaryIO | None = None) -> None:
        self._least = LEVELS.index(level)
        self._out = out
        self._held = bytearray()
        self._lost = 0
        self._writing = self._wanted = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

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

    def hand_over(self) -> None:
        """Let the thread write the lines that are held, without waiting for it."""
        with self._changed:
            self._wake()

    def flush(self, seconds: float = 1.0) -> None:
        """Wait until the lines that are held are written, at most some seconds."""
        with self._changed:
            self._wake()
            self._changed.wait_for(lambda: not (self._held or self._writing), seconds)

    def _wake(self) -> None:
        if not self._held:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="log", daemon=True)
            self._thread.start()
        self._wanted = True
        self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._writing = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._wanted)
                lines, self._held, self._wanted = bytes(self._held), bytearray(), False
                self._writing = True
                lost, self._lost = self._lost, 0
            count = lost + lines.count(b"\n")
            if lost:
                lines += _encode(_line("warning", "log lines lost", {"lines": lost})) + b"\n"
            if not self._written(lines):
                with self._changed:
                    self._lost += count

    def _written(self, lines: bytes) -> bool:
        """Whether all of it could be written."""
        with contextlib.suppress(OSError, ValueError):
            if self._out is not None:
                self._out.write(lines)
                self._out.flush()
                return True
            rest = memoryview(lines)
            while rest:
                rest = rest[os.write(_STDERR, rest) :]
            return True
        return False

    def _write(self, level: int, event: str, fields: dict[str, Any]) -> None:
        if level < self._least:
            return
        line = _encode(_line(LEVELS[level], event, fields)) + b"\n"
        with self._changed:
            if len(self._held) + len(line) > _MOST_HELD:
                self._lost += 1
                return
            self._held += line
            if level >= 2 or len(self._held) > _FULL:
                self._wake()


def _line(level: str, event: str, fields: dict[str, Any]) -> dict[str, Any]:
    short = {
        name: _shortened(value, 10 * LONGEST if name == "traceback" else LONGEST)
        for name, value in fields.items()
    }
    return {"time": round(time.time(), 3), "level": level, "event": event, **short}


def _shortened(value: Any, most: int) -> Any:
    if not isinstance(value, str) or len(value) <= most:
        return value
    return f"{value[: most // 2]} ... {value[-most // 2 :]}"


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
