"""A service in the test's own process, asked without a network; and artifacts to serve."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from modalign_serve.artifact.artifact import Artifact
from modalign_serve.command.server import application
from modalign_serve.http.app import Application
from modalign_serve.service.logs import JsonLog
from modalign_serve.service.service import Service
from modalign_serve.service.service_settings import ServiceSettings

WIDTH = 8
TEXT_WIDTH = 5


def with_adapter(artifact: Artifact) -> Artifact:
    """An adapter that copies the unit text features into the first columns of a vector."""
    linear = np.zeros((TEXT_WIDTH + 1, WIDTH), np.float32)
    linear[:TEXT_WIDTH, :TEXT_WIDTH] = 10 * np.eye(TEXT_WIDTH)
    matrices = {
        "linear": linear,
        "bias": np.zeros(WIDTH, np.float32),
        "hidden": np.zeros((TEXT_WIDTH + 1, 0), np.float32),
        "hidden_bias": np.zeros(0, np.float32),
        "out": np.zeros((0, WIDTH), np.float32),
        "centre.text": np.zeros(TEXT_WIDTH, np.float32),
    }
    manifest = replace(artifact.manifest, adapter={"modalities": ["text"]})
    return replace(artifact, manifest=manifest, adapter=matrices)


class Asked:
    """A running service; its event loop lives in another thread."""

    def __init__(self, service: Service, log: io.BytesIO) -> None:
        self.service, self._log = service, log
        self.app: Application = application(service)
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        transport = httpx.ASGITransport(self.app, client=("10.0.0.1", 1234))
        self._client = httpx.AsyncClient(transport=transport, base_url="http://shop.test")
        # Tests send the cookies they mean to send.
        self._client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self.run(service.start())

    def run(self, work: Any) -> Any:
        """Wait for a coroutine in the service's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def ask(self, method: str, path: str, body: Any = None, **more: Any) -> httpx.Response:
        """One request; a body that is neither text nor bytes goes as JSON."""
        content = body if body is None or isinstance(body, str | bytes) else json.dumps(body)
        found: httpx.Response = self.run(
            self._client.request(method, path, content=content, **more)
        )
        return found

    def together(self, path: str, bodies: list[Any]) -> list[httpx.Response]:
        """Requests that arrive at the same moment."""

        async def all_of_them() -> list[httpx.Response]:
            asked = (self._client.post(path, content=json.dumps(body)) for body in bodies)
            return list(await asyncio.gather(*asked))

        found: list[httpx.Response] = self.run(all_of_them())
        return found

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.ask("GET", path, **more)

    def post(self, path: str, body: Any, **more: Any) -> httpx.Response:
        return self.ask("POST", path, body, **more)

    def recommend(self, body: Any, model: str = "shop") -> list[str]:
        """Ids of a list."""
        answer = self.post(f"/v1/models/{model}/recommend", body)
        assert answer.status_code == 200, answer.text
        return [one["item_id"] for one in answer.json()["items"]]

    def log(self) -> list[dict[str, Any]]:
        """Lines written so far."""
        self.service.log.flush()
        return [json.loads(line) for line in self._log.getvalue().splitlines()]

    def stop(self) -> None:
        self.run(self.service.stop())
        self.run(self._client.aclose())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@contextmanager
def serving(artifacts: dict[str, Path], feedback: Path | str, **settings: Any) -> Iterator[Asked]:
    """A service of artifacts, stopped at the end."""
    log = io.BytesIO()
    settings.setdefault("hosts", ("shop.test",))
    told = ServiceSettings(artifacts=artifacts, feedback=str(feedback), **settings)
    asked = Asked(Service(told, JsonLog(told.log, log)), log)
    try:
        yield asked
    finally:
        asked.stop()


def event(event_id: str, user: Any = "u1", item: Any = "i1", kind: str = "click") -> dict[str, Any]:
    return {"event_id": event_id, "user_id": user, "item_id": item, "kind": kind}
