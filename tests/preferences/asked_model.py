"""What the tests of preferences share besides fixtures."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

KEY = "sk-never-to-be-seen-0123456789"


@dataclass(frozen=True)
class Said:
    """What the server answers to one request."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0


def completion(text: str | None, **usage: int) -> Said:
    """An answer as servers give it."""
    message = {"role": "assistant", "content": text}
    return Said(body=json.dumps({"choices": [{"message": message}], "usage": usage}).encode())


def taste(prompt: str) -> str:
    """An answer that follows from the prompt."""
    liked = "red shoes" if prompt.count("book") <= prompt.count("shoe") else "old books"
    return f"Likes {len(prompt)} {liked}."


def ignore(done: int, total: int) -> None:
    """A progress nobody watches."""
