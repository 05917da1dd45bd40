"""The log: it never stops or blocks the service."""

from __future__ import annotations

import io
import json
import threading
import time

from modalign_serve.service.logs import JsonLog


class Stuck(io.BytesIO):
    """An output that takes nothing until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.release = threading.Event()

    def write(self, data: object) -> int:
        self.release.wait(20)
        return super().write(data)  # type: ignore[arg-type]


class Full(io.BytesIO):
    def write(self, data: object) -> int:
        raise OSError(28, "No space left on device")


def test_an_output_that_is_stuck_blocks_nothing_and_what_is_lost_is_counted() -> None:
    out = Stuck()
    log = JsonLog("info", out)
    started = time.monotonic()
    for n in range(20_000):
        log.info("request", path="x" * 100, n=n)
    log.error("serious")
    assert time.monotonic() - started < 5
    out.release.set()
    log.flush(5)
    log.info("after")
    log.flush(5)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    lost = sum(line["lines"] for line in lines if line["event"] == "log lines lost")
    kept = len([line for line in lines if line["event"] in ("request", "serious", "after")])
    assert lost > 1000
    assert kept + lost == 20_002
    assert lines[-1]["event"] in ("after", "log lines lost")


def test_a_full_disk_stops_nothing() -> None:
    log = JsonLog("info", Full())
    for _ in range(3):
        log.error("serious")
        log.flush()
    log._out = out = io.BytesIO()  # space again
    log.info("after")
    log.flush()
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["after", "log lines lost"]
    assert lines[1]["lines"] == 3


def test_long_texts_are_cut() -> None:
    out = io.BytesIO()
    log = JsonLog("info", out)
    log.info("request", message="a" * 1_000_000 + "b")
    log.flush()
    line = json.loads(out.getvalue())
    assert len(line["message"]) < 2100
    assert line["message"].endswith("b")
