"""A benchmark of the server under load from another process: throughput, latency and memory.

The caller sends prepared HTTP/1.1 requests over raw sockets, one in flight per connection, so it
takes little of the machine itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modalign_serve.artifact.read import read_artifact
from modalign_serve.errors import ModalignError

START_SECONDS = 60.0
WARM_SECONDS = 0.5


@dataclass(frozen=True)
class LoadResult:
    """The measurements under one load.

    Attributes:
        k, connections, seconds: of the load.
        requests, failed: answered, and answered with another status than 200.
        p50_ms, p99_ms, slowest_ms: from sending a request to the end of its answer.
        memory_mb: resident memory of the server after the load, in millions of bytes.
        start_seconds: from the start of the process to its first answer.
    """

    users: int
    n_items: int
    k: int
    connections: int
    seconds: float
    requests: int
    failed: int
    per_second: float
    p50_ms: float
    p99_ms: float
    slowest_ms: float
    memory_mb: float
    start_seconds: float


def measure(
    artifact: str | Path, users: int, seconds: float, connections: int = 8, k: int = 20
) -> LoadResult:
    """Start a server of an artifact, load it from a third process, and stop it.

    Args:
        artifact: its folder.
        users: maximum number of different users in the requests.
        seconds: duration of the load.
        connections: requests in flight at a time.
        k: length of the lists.

    Raises:
        ArtifactError: there is no artifact.
        ModalignError: the server or the caller failed.
    """
    held = read_artifact(artifact, "quick")
    ids = held.user_ids.take(range(min(users, held.n_users)))
    if not ids:
        raise ModalignError(f"{artifact} has no users")
    random.Random(1).shuffle(ids)
    with running([f"bench={artifact}"]) as service:
        load = {
            "port": service.port,
            "path": "/v1/models/bench/recommend",
            "bodies": [json.dumps({"user_id": one, "k": k}) for one in ids],
            "connections": connections,
        }
        _loaded({**load, "seconds": WARM_SECONDS})
        found = _loaded({**load, "seconds": seconds})
        memory = resident(service.pid)
    return LoadResult(
        users=len(ids),
        n_items=held.n_items,
        k=k,
        connections=connections,
        memory_mb=memory / 1e6,
        start_seconds=service.start_seconds,
        **found,
    )


@dataclass(frozen=True)
class Running:
    """A server in another process."""

    pid: int
    port: int
    start_seconds: float
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"


@contextlib.contextmanager
def running(artifacts: Sequence[str], *options: str) -> Iterator[Running]:
    """`modalign-serve run` in another process on a free port, ended by SIGTERM.

    Args:
        artifacts: folders, or NAME=FOLDER.
        *options: further options of the command; by default feedback goes to a temporary file.

    Raises:
        ModalignError: the server did not start.
    """
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("w+b") as log:
        feedback = () if "--feedback" in options else ("--feedback", str(Path(folder) / "f.sqlite"))
        started = time.perf_counter()
        quiet = () if "--log" in options else ("--log", "warning")
        port_file = Path(folder) / "port"
        words = ["run", *artifacts, "--port", "0", "--port-file", str(port_file)]
        process = subprocess.Popen(
            [sys.executable, "-m", "modalign_serve.command.main", *words, *quiet, *feedback,
             *options],
            stdout=log, stderr=log,
        )  # fmt: skip
        try:
            port = _wait_ready(process, port_file, Path(log.name), started + START_SECONDS)
            yield Running(process.pid, port, time.perf_counter() - started, process)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(40)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def _wait_ready(process: subprocess.Popen[bytes], port_file: Path, log: Path, until: float) -> int:
    """The port of a server, once it is ready."""
    while time.perf_counter() < until:
        if process.poll() is not None:
            text = log.read_text("utf-8", "replace").strip()
            raise ModalignError(f"the server ended: {text[-500:]}")
        if port_file.exists():
            port = int(port_file.read_text())
            with (
                contextlib.suppress(urllib.error.URLError, ConnectionError),
                urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5),
            ):
                return port
        time.sleep(0.01)
    raise ModalignError("the server was not ready in time")


def resident(pid: int) -> int:
    """Resident memory of a process in bytes, with pages of mapped files.

    Raises:
        ModalignError: this system has no /proc, or the process has ended.
    """
    path = Path(f"/proc/{pid}/status")
    if not path.is_file():
        raise ModalignError("memory is read from /proc, which this system does not have")
    for line in path.read_text().splitlines():
        if line.startswith("VmRSS:"):
            return 1024 * int(line.split()[1])
    raise ModalignError(f"the process {pid} has ended")


def _loaded(load: dict[str, Any]) -> dict[str, Any]:
    """Run the caller in a process of its own; see `call`."""
    ended = subprocess.run(
        [sys.executable, "-m", "modalign_serve.command.bench"],
        input=json.dumps(load).encode(),
        capture_output=True,
        check=False,
    )
    if ended.returncode != 0:
        raise ModalignError(f"the caller failed: {ended.stderr.decode()[-500:]}")
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


class _Caller(asyncio.Protocol):
    """One connection: sends a request, waits for the complete answer, sends the next."""

    def __init__(self, requests: Iterator[bytes], until: float, times: list[float]) -> None:
        self._requests, self._until, self._times = requests, until, times
        self._held = b""
        self._need = -1
        self._sent = 0.0
        self.failed = 0
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._next()

    def _next(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(next(self._requests))

    def data_received(self, data: bytes) -> None:
        self._held += data
        if self._need < 0:
            end = self._held.find(b"\r\n\r\n")
            if end < 0:
                return
            head = self._held[:end].lower()
            at = head.index(b"content-length: ") + 16
            line = head.find(b"\r\n", at)
            length = head[at:line] if line >= 0 else head[at:]
            self._need = end + 4 + int(length)
        if len(self._held) < self._need:
            return
        now = time.perf_counter()
        self._times.append(now - self._sent)
        self.failed += not self._held.startswith(b"HTTP/1.1 200")
        self._held, self._need = b"", -1
        if now < self._until:
            self._next()
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._held or self._need >= 0:
            self.failed += 1
        if not self.ended.done():
            self.ended.set_result(None)


async def call(
    port: int,
    path: str,
    bodies: Sequence[str],
    connections: int,
    seconds: float,
    authorization: str | None = None,
) -> dict[str, Any]:
    """Send requests on some connections, one in flight on each.

    Args:
        port: on this machine.
        path: to POST to.
        bodies: sent in this order, repeatedly.
        connections: number of connections.
        seconds: duration.
        authorization: header sent with each request.
    """
    key = f"authorization: {authorization}\r\n" if authorization else ""
    made = []
    for body in bodies:
        data = body.encode()
        head = (
            f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{key}content-length: {len(data)}\r\n\r\n"
        )
        made.append(head.encode() + data)

    def again() -> Iterator[bytes]:
        while True:
            yield from made

    requests, times = again(), list[float]()
    loop = asyncio.get_running_loop()
    started = time.perf_counter()
    callers = []
    for _ in range(connections):
        _, caller = await loop.create_connection(
            lambda: _Caller(requests, started + seconds, times), "127.0.0.1", port
        )
        callers.append(caller)
    await asyncio.gather(*(caller.ended for caller in callers))
    took = time.perf_counter() - started
    times.sort()
    return {
        "seconds": took,
        "requests": len(times),
        "failed": sum(caller.failed for caller in callers),
        "per_second": len(times) / took,
        "p50_ms": 1000 * times[len(times) // 2],
        "p99_ms": 1000 * times[min(len(times) - 1, int(0.99 * len(times)))],
        "slowest_ms": 1000 * times[-1],
    }


def _loop() -> Callable[[], asyncio.AbstractEventLoop]:
    """Uvloop if it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=_loop()) as runner:
        json.dump(runner.run(call(**json.load(sys.stdin))), sys.stdout)
