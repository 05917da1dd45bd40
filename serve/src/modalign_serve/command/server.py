"""The process: granian serves the application until a signal ends it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server

from modalign_serve.errors import ConfigError, Failure, InputError
from modalign_serve.http.app import Application
from modalign_serve.http.http import Table
from modalign_serve.http.routes import Routes
from modalign_serve.service.logs import ToLog
from modalign_serve.service.service import Service
from modalign_serve.web import pages

MAX_HEAD = 64 * 1024
"""Maximum bytes of the head of a request, and of what is read of a connection at a time."""
MAX_CONNECTIONS = 512
"""Maximum connections at a time; more wait until one of them is closed."""
GRACE = 50
"""Maximum seconds after SIGTERM and the drain until the process ends, whatever a store or a thread
still does."""


def application(service: Service) -> Application:
    """The ASGI application of a service: the API, and the page unless it is switched off."""
    endpoints = [*Routes(service).table.endpoints]
    if service.settings.page:
        endpoints += pages.endpoints(service)
    return Application(service, Table(endpoints))


def bind(host: str, port: int) -> socket.socket:
    """A socket that reserves an address until the server listens there; port 0 takes a free one.

    Raises:
        ConfigError: the address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    if port:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host, port))
    except OSError as error:
        made.close()
        raise ConfigError(
            "a free address and port", f"{host}:{port}: {error.strerror or error}",
            "stop the process that listens there, or choose another --port",
        ) from error  # fmt: skip
    return made


def run(service: Service, sock: socket.socket, listening: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT; requests in flight are answered before it returns.

    Args:
        service: that answers.
        sock: of `bind`.
        listening: called once the server accepts connections.
    """
    logging.basicConfig(handlers=[ToLog(service.log)], level=logging.WARNING, force=True)
    # What was read at the start stays: the garbage collector need not visit it again.
    gc.collect()
    gc.freeze()
    with asyncio.Runner(loop_factory=_loop()) as runner:
        runner.run(_Process(service, sock, listening).run())


def _loop() -> Callable[[], asyncio.AbstractEventLoop]:
    if sys.platform == "win32":
        return asyncio.new_event_loop
    import uvloop

    return uvloop.new_event_loop


class _Process:
    """Stops in two steps: first `/ready` reports it, and after the drain nothing is accepted."""

    def __init__(
        self, service: Service, sock: socket.socket, listening: Callable[[], None]
    ) -> None:
        self._service, self._sock, self._listening = service, sock, listening
        self._tasks: set[asyncio.Task[None]] = set()
        host, port = sock.getsockname()[:2]
        if sys.platform == "linux":
            # The server binds the same address, with this option too.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        else:
            sock.close()
        seconds = service.settings.timeout
        self._server = Server(
            application(service),
            host,
            port,
            interface=Interfaces.ASGINL,
            http=HTTPModes.http1,
            websockets=False,
            backlog=2048,
            backpressure=MAX_CONNECTIONS,
            http1_settings=HTTP1Settings(
                header_read_timeout=max(1, round(1000 * seconds)), max_buffer_size=MAX_HEAD
            ),
            log_enabled=False,
        )

    async def run(self) -> None:
        """Serve until a signal ends it."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(NotImplementedError):
                loop.add_signal_handler(number, self._end)
        if hasattr(signal, "SIGHUP"):
            loop.add_signal_handler(signal.SIGHUP, self._reload)
        await self._service.start()
        try:
            announcing = asyncio.create_task(self._announce())
            await self._server.serve()
            announcing.cancel()
        finally:
            await self._service.stop()

    async def _announce(self) -> None:
        """Wait until the server listens; then let the kernel end connections that do not read."""
        port = self._sock.getsockname()[1] if sys.platform == "linux" else 0
        while port:
            found = _listens_on(port)
            if found is not None:
                with found:
                    milliseconds = round(1000 * self._service.settings.timeout)
                    found.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)
                break
            await asyncio.sleep(0.002)
        self._listening()

    def _end(self) -> None:
        drain = self._service.settings.drain
        stop: Callable[[], None] = self._server.stop
        if self._service.stopping or not drain:
            stop()
        else:
            asyncio.get_running_loop().call_later(drain, stop)
        if not self._service.stopping:
            ending = threading.Timer(drain + GRACE, self._end_by_force)
            ending.daemon = True
            ending.start()
        self._service.stopping = True

    def _end_by_force(self) -> None:
        """End a process that something holds; what was acknowledged is on disk."""
        self._service.log.error("ended by force", reason=f"not done {GRACE} s after SIGTERM")
        self._service.log.flush()
        os._exit(1)

    def _reload(self) -> None:
        self._service.reload_keys()
        for name in self._service.models.names():
            task = asyncio.ensure_future(self._swap(name))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _swap(self, name: str) -> None:
        try:
            await self._service.swap(name, None)
        except (InputError, Failure) as error:
            self._service.log.error("swap refused", model=name, reason=str(error))


def _listens_on(port: int) -> socket.socket | None:
    """This process's socket that listens on a port, by a descriptor of its own."""
    for path in Path("/proc/self/fd").iterdir():
        try:
            found = socket.socket(fileno=os.dup(int(path.name)))
        except OSError:  # no socket, or closed meanwhile
            continue
        with contextlib.suppress(OSError):
            accepts = found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
            address = found.getsockname()
            if accepts and isinstance(address, tuple) and address[1] == port:
                return found
        found.close()
    return None
