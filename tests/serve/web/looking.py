"""Reading pages, and sending forms as a browser does."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlencode

import httpx
from served import Asked

NASTY = """<script>alert("x")</script> & 'more'"""
SITE = {"origin": "http://shop.test", "sec-fetch-site": "same-origin"}
# A text's feature is its length, so that a test can tell what was encoded.
ENCODER = """
import base64, json, sys
for line in sys.stdin:
    asked = json.loads(line)
    broken = "image" in asked and not base64.b64decode(asked["image"]).startswith(b"\\x89PNG")
    if broken or asked.get("text") == "bad":
        told = {"expected": "a readable text", "got": "bad", "fix": "mend it", "input": True}
        print(json.dumps({"error": told}), flush=True)
        continue
    rows = {"text": [len(asked.get("text", "")), 1.0], "image": [1.0, 2.0, 3.0]}
    print(json.dumps({"features": {n: rows[n] for n in asked["wanted"]}}), flush=True)
"""


class Page(HTMLParser):
    """What stands in a page.

    Attributes:
        tags: every opening tag with its attributes.
        text: all text outside scripts, with single spaces.
    """

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._texts: list[str] = []
        self.feed(source)
        self.text = " ".join(" ".join(self._texts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self._texts.append(data)

    def all(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        """Attributes of the tags with these attributes; a class is one of several."""
        wanted = {name.rstrip("_"): value for name, value in wanted.items()}
        return [
            held
            for name, held in self.tags
            if name == tag
            and all(value in (held.get(key) or "").split() for key, value in wanted.items())
        ]

    def addresses(self) -> list[str]:
        """Where links, forms, pictures and files lead."""
        return [
            value
            for _, held in self.tags
            for key in ("href", "src", "action")
            if (value := held.get(key)) is not None
        ]


def look(asked: Asked, address: str, status: int = 200, **more: Any) -> Page:
    """A page of the service; it must be one, with this status."""
    answer = asked.get(f"/page/{address}", **more)
    return read(answer, status)


def read(answer: httpx.Response, status: int = 200) -> Page:
    """An answer as a page."""
    assert answer.status_code == status, answer.text[:2000]
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    return Page(answer.text)


def send(asked: Asked, page: str, values: dict[str, Any], **headers: str) -> httpx.Response:
    """A form without files."""
    told = {"content-type": "application/x-www-form-urlencoded", **SITE, **headers}
    return asked.post(f"/page/{page}", urlencode(values, doseq=True), headers=told)


def send_files(
    asked: Asked, page: str, values: dict[str, str], files: dict[str, bytes]
) -> httpx.Response:
    """A form with files."""
    mark = "----edge"
    parts = [
        f'--{mark}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in values.items()
    ]
    parts += [
        f'--{mark}\r\nContent-Disposition: form-data; name="{name}"; filename="a.png"\r\n'
        f"Content-Type: image/png\r\n\r\n".encode()
        + content
        + b"\r\n"
        for name, content in files.items()
    ]
    body = b"".join(parts) + f"--{mark}--\r\n".encode()
    told = {"content-type": f"multipart/form-data; boundary={mark}", **SITE}
    return asked.post(f"/page/{page}", body, headers=told)
