"""Requests to a server in a process of its own, and the memory that they cost it."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any

from modalign_serve.command.bench import Running


def ask(
    live: Running, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", live.port, timeout=60)
    try:
        connection.request(method, path, None if body is None else json.dumps(body), headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def peak(live: Running) -> int:
    """Highest resident memory of the server so far, in bytes."""
    lines = Path(f"/proc/{live.pid}/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
