"""Pictures of strangers as new items, against the process that decodes them."""

from __future__ import annotations

import io
import sys
import time
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from modalign.encoding.picture_process import decoded_apart
from modalign.errors import DataError


def saved(picture: Image.Image, kind: str) -> bytes:
    held = io.BytesIO()
    picture.save(held, kind)
    return held.getvalue()


def huge_png(width: int, height: int, depth: int = 8, colour: int = 0) -> bytes:
    """A PNG that promises many zeros and holds the first of them."""

    def chunk(name: bytes, data: bytes) -> bytes:
        check = zlib.crc32(name + data).to_bytes(4, "big")
        return len(data).to_bytes(4, "big") + name + data + check

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([depth, colour, 0, 0, 0])
    packed = zlib.compress(bytes(100_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", packed)


def eps() -> bytes:
    return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n{} loop\n%%EOF\n"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_three_formats_are_decoded(kind: str) -> None:
    found = decoded_apart(saved(Image.new("RGB", (30, 20), "red"), kind))
    assert found.size == (30, 20)
    assert np.abs(np.asarray(found).mean(axis=(0, 1)) - [255, 0, 0]).max() < 8


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (eps, "not a picture"),
        (lambda: saved(Image.new("RGB", (9, 9)), "TIFF"), "not a picture"),
        (lambda: saved(Image.new("RGB", (9, 9)), "GIF"), "not a picture"),
        (lambda: saved(Image.new("RGB", (90, 90)), "PNG")[:60], "broken|picture"),
        (lambda: huge_png(1, 60_000_000), "60,000,000"),
        (lambda: huge_png(9400, 9400, 16, 6), "88,360,000"),
        (lambda: huge_png(2**31 - 1, 2**31 - 1), "40,000,000"),
    ],
    ids=["EPS", "TIFF", "GIF", "cut", "1 x 60,000,000", "9,400 x 9,400 RGBA16", "2^62"],
)
def test_other_pictures_are_refused(made: Callable[[], bytes], told: str) -> None:
    started = time.monotonic()
    with pytest.raises(DataError, match=told):
        decoded_apart(made())
    assert time.monotonic() - started < 5


LIMITED = """
picture_process.limit(memory={memory}, seconds=1)
{more}
picture_process.main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("memory", "more"),
    [(2**24, ""), (2**30, "while True: pass"), (2**30, "import os; os.abort()")],
    ids=["memory", "time", "a decoder that dies"],
)
def test_a_picture_takes_no_more_than_its_memory_and_time(memory: int, more: str) -> None:
    plain = saved(Image.new("RGB", (5000, 4000)), "PNG")
    command = (sys.executable, "-c", LIMITED.format(memory=memory, more=more))
    with pytest.raises(DataError, match=r"too much memory or time|broken"):
        decoded_apart(plain, command)
    small = saved(Image.new("RGB", (50, 40)), "PNG")
    assert decoded_apart(small).size == (50, 40), "the next one has a process of its own"
