"""Texts and pictures of new items, encoded by another process, as this one has no torch."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from modalign_serve.errors import Failure, unavailable
from modalign_serve.service.served import Served

PATIENCE = 60.0
"""Maximum seconds for one item; the first one also loads the encoder's weights."""
LONGEST = 16 * 1024 * 1024
"""Maximum bytes of an answer."""


class EncoderProcess:
    """A process that answers a line of JSON with a line of JSON, started at the first request.

    Args:
        command: starts it; see `modalign.encoding.standing` for the protocol.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = tuple(command)
        self._process: asyncio.subprocess.Process | None = None
        self._one_at_a_time = asyncio.Lock()

    async def features(self, served: Served, raw: Mapping[str, str]) -> dict[str, list[float]]:
        """Features by modality of an item's text, picture, or both.

        Args:
            served: the model, whose content adapter names the modalities and their encoders.
            raw: "text" as it is, "image" in base64.

        Raises:
            Failure: 409 if the model has no modality for what was sent, or its encoder cannot
                encode single items; 422 if the picture cannot be read; 503 if the process fails.
        """
        wanted = _wanted(served, raw)
        question = msgspec.json.encode({"wanted": wanted, **raw})
        async with self._one_at_a_time:
            try:
                async with asyncio.timeout(PATIENCE):
                    line = await self._asked(question)
            except (TimeoutError, OSError, ValueError) as error:
                await self.stop()
                raise unavailable(
                    f"an encoder that failed ({type(error).__name__})", "send it again", 5
                ) from error
        answer = msgspec.json.decode(line)
        if "error" in answer:
            facts = answer["error"]
            status = 422 if facts["input"] else 409
            raise Failure(status, facts["expected"], facts["got"], facts["fix"])
        found: dict[str, list[float]] = answer["features"]
        return found

    async def _asked(self, question: bytes) -> bytes:
        process = self._process
        if process is None or process.returncode is not None:
            process = self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=LONGEST,
            )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(question + b"\n")
        await process.stdin.drain()
        line = await process.stdout.readline()
        if not line.endswith(b"\n"):
            raise OSError("the process ended")
        return line

    async def stop(self) -> None:
        """End the process; the next request starts another."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _wanted(served: Served, raw: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The encoder of each modality that the adapter reads and that the item was sent with."""
    adapter = served.ranker.adapter
    known = served.ranker.manifest.modalities
    found, kinds = {}, set()
    for name in adapter.names if adapter is not None else ():
        made = known.get(name, {}).get("provenance", {})
        if made.get("kind") in raw and "encoder" in made:
            found[name] = {"encoder": made["encoder"], "kind": made["kind"]}
            kinds.add(made["kind"])
    missing = sorted(set(raw) - kinds)
    if missing:
        raise Failure(
            409, f"a model with an encoder for {' and '.join(missing)}", served.name,
            "send the item's features by modality, as named in the model's card",
        )  # fmt: skip
    return found
