"""Pictures of strangers, each decoded by a process with little memory and time.

    python -m modalign.encoding.picture_process < picture > pixels

A file of some kilobytes may unpack to gigabytes, and decoders of pictures have errors. The process
takes PNG, JPEG and WebP by their content, of at most 40 million pixels, and writes a line with
width and height, then the pixels in RGB; or a line with the reason.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from modalign.data.pictures import UnreadablePicture, decoded
from modalign.errors import DataError

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_PIXELS = 40_000_000
"""Maximum size of a picture of a new item."""
MEMORY = 2**30
"""Maximum bytes of memory that decoding may take in addition."""
SECONDS = 10
"""Maximum seconds for one picture."""


COMMAND = (sys.executable, "-m", "modalign.encoding.picture_process")


def decoded_apart(plain: bytes, command: Sequence[str] = COMMAND) -> Image.Image:
    """A picture in RGB, decoded by a process of its own.

    Args:
        plain: the bytes of the file.
        command: of the process.

    Raises:
        DataError: it is not a PNG, JPEG or WebP, has too many pixels, or takes too much memory or
            time to decode.
    """
    fix = "send a smaller picture, or another"
    try:
        ended = subprocess.run(
            command,
            input=plain,
            capture_output=True,
            timeout=2 * SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise DataError("a PNG, JPEG or WebP", "one that takes too long to decode", fix) from error
    line, _, pixels = ended.stdout.partition(b"\n")
    if ended.returncode != 0 or not line:
        got = "one that takes too much memory or time to decode"
        raise DataError("a PNG, JPEG or WebP", got, fix)
    told = json.loads(line)
    if "got" in told:
        raise DataError(told["expected"], told["got"], fix)
    return Image.frombytes("RGB", (told["width"], told["height"]), pixels)


def answered(plain: bytes) -> tuple[dict[str, int | str], bytes]:
    """Size of a picture or why it is refused, and its pixels.

    Example:
        >>> answered(b"no picture")[0]["got"]
        'not a picture of PNG, JPEG or WebP'
    """
    few = f"a picture of at most {MAX_PIXELS:,} pixels"
    try:
        with Image.open(io.BytesIO(plain), formats=FORMATS) as picture:
            pixels = picture.width * picture.height
    except Image.DecompressionBombError:
        return {"expected": few, "got": "more"}, b""
    except Exception:  # noqa: BLE001 - decoders raise what they like
        return {"expected": "a PNG, JPEG or WebP", "got": "not a picture of PNG, JPEG or WebP"}, b""
    if pixels > MAX_PIXELS:
        return {"expected": few, "got": f"{pixels:,}"}, b""
    try:
        found = decoded(io.BytesIO(plain))
    except UnreadablePicture as error:
        return {"expected": "a PNG, JPEG or WebP", "got": str(error)}, b""
    return {"width": found.width, "height": found.height}, found.tobytes()


def limit(memory: int = MEMORY, seconds: int = SECONDS) -> None:
    """Let the system end this process if it takes too much memory or time.

    Args:
        memory: that may be taken in addition, in bytes.
        seconds: of the processor.
    """
    if sys.platform == "win32":
        return
    import resource

    statm = Path("/proc/self/statm")
    pages = int(statm.read_text().split()[0]) if statm.is_file() else 0
    mapped = pages * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + memory, mapped + memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    """Decode one picture."""
    told, pixels = answered(sys.stdin.buffer.read())
    sys.stdout.buffer.write(json.dumps(told).encode() + b"\n" + pixels)


if __name__ == "__main__":
    limit()
    main()
