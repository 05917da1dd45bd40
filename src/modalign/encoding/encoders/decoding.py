"""Sound and pictures out of media files that came from anywhere: known containers, bounded time.

Files are decoded with PyAV. Only containers of the list below are opened, found by a file's
content: FFmpeg also knows playlists, which make it open other files and addresses.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from modalign.data.pictures import MAX_PIXELS
from modalign.encoding.encoders.encoder import UnreadableInput, missing_extra

CONTAINERS = (
    "wav", "w64", "mp3", "flac", "ogg", "aac", "aiff", "mov", "matroska", "avi", "mpeg", "mpegts",
)  # fmt: skip
"""FFmpeg's names of the containers that are opened; `mov` is MP4 too, `matroska` WebM."""
SIDE = 640
"""Pixels of the longer side of a decoded frame."""
_PACKETS = 3000
"""Frames that are decoded at most in search of one; no key frame is farther away."""


def sound(path: str | Path, rate: int, seconds: float) -> np.ndarray:
    """The first sound track as one channel of float32 in [-1, 1].

    Args:
        path: of a sound or a video.
        rate: samples per second, to which it is converted.
        seconds: how much of it is decoded, from the start.

    Raises:
        UnreadableInput: there is no file, no sound in it, or it is broken.
        ConfigError: the extra `media` is missing.
    """
    wanted = int(rate * seconds)
    parts: list[np.ndarray] = []
    found = 0
    with _opened(path) as (av, container):
        if not container.streams.audio:
            raise UnreadableInput("no sound track")
        resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
        for frame in container.decode(audio=0):
            for piece in resampler.resample(frame):
                parts.append(piece.to_ndarray().reshape(-1))
                found += len(parts[-1])
            if found >= wanted:
                break
        else:
            parts += [piece.to_ndarray().reshape(-1) for piece in resampler.resample(None)]
    wave = np.concatenate(parts)[:wanted] if parts else np.empty(0, np.float32)
    if not len(wave):
        raise UnreadableInput("an empty sound track")
    if not np.isfinite(wave).all():
        raise UnreadableInput("a sound track with NaN or infinite samples")
    return wave.astype(np.float32)


def has_sound(path: str | Path) -> bool:
    """Whether a file has a sound track.

    Raises:
        UnreadableInput: see `sound`.
        ConfigError: the extra `media` is missing.
    """
    with _opened(path) as (_, container):
        return bool(container.streams.audio)


def frames(path: str | Path, n: int) -> list[Image.Image]:
    """Pictures of a video at `n` evenly spaced moments: the middles of `n` equal parts.

    They are upright, and scaled down to `SIDE` pixels.

    Args:
        path: of the video.
        n: number of pictures; fewer if the video has fewer frames.

    Raises:
        UnreadableInput: there is no file, no moving picture in it, or it is broken.
        ConfigError: the extra `media` is missing.
    """
    with _opened(path) as (av, container):
        if not container.streams.video:
            raise UnreadableInput("no moving picture")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        if stream.width * stream.height > MAX_PIXELS:
            raise UnreadableInput(f"frames of more than {MAX_PIXELS:,} pixels")
        length = _length(container, stream, av)
        if length is None:
            return _first(container, n)
        found = []
        start = float((stream.start_time or 0) * stream.time_base)
        for part in range(n):
            moment = start + length * (part + 0.5) / n
            container.seek(int(moment / stream.time_base), stream=stream)
            frame = _at(container, moment)
            if frame is not None:
                found.append(_picture(frame))
    if not found:
        raise UnreadableInput("no frame can be decoded")
    return found


def _length(container: Any, stream: Any, av: Any) -> float | None:
    if stream.duration:
        return float(stream.duration * stream.time_base)
    return float(container.duration / av.time_base) if container.duration else None


def _at(container: Any, moment: float) -> Any:
    """The last frame that starts at a moment or before it, or the first one after it."""
    last = None
    for count, frame in enumerate(container.decode(video=0)):
        if frame.time is not None and frame.time > moment and last is not None:
            return last
        last = frame
        if count >= _PACKETS or (frame.time is not None and frame.time >= moment):
            break
    return last


def _first(container: Any, n: int) -> list[Image.Image]:
    """Evenly spaced pictures of the first frames, of a video that does not say how long it is."""
    kept: list[Image.Image] = []
    every = 1
    for count, frame in enumerate(container.decode(video=0)):
        if count >= _PACKETS:
            break
        if count % every == 0:
            kept.append(_picture(frame))
        if len(kept) == 2 * n:
            kept, every = kept[::2], 2 * every
    if not kept:
        raise UnreadableInput("no frame can be decoded")
    places = ((np.arange(n) + 0.5) * len(kept) / n).astype(int)
    return [kept[place] for place in np.unique(places)]


def _picture(frame: Any) -> Image.Image:
    if frame.width * frame.height > MAX_PIXELS:
        raise UnreadableInput(f"frames of more than {MAX_PIXELS:,} pixels")
    scale = min(1.0, SIDE / max(frame.width, frame.height))
    width, height = (max(2, round(side * scale)) for side in (frame.width, frame.height))
    picture: Image.Image = frame.to_image(width=width, height=height)
    turn = int(getattr(frame, "rotation", 0) or 0) % 360
    return picture.rotate(turn, expand=True) if turn else picture


@contextmanager
def _opened(path: str | Path) -> Iterator[tuple[Any, Any]]:
    """PyAV and an open container.

    Raises:
        UnreadableInput: see `sound`; errors of the decoder within the block count as well.
        ConfigError: the extra `media` is missing.
    """
    try:
        import av
    except ImportError as error:
        raise missing_extra("av", "media") from error
    if not Path(path).is_file():
        raise UnreadableInput("no such file")
    options = {"format_whitelist": _whitelist(av), "protocol_whitelist": "file"}
    broken = (av.error.FFmpegError, OSError, ValueError, EOFError, RuntimeError, LookupError)
    try:
        # With `file:`, a name such as `concat:a|b` is a name and nothing else.
        container = av.open(f"file:{Path(path).resolve()}", container_options=options)
    except broken as error:
        known = f"{', '.join(CONTAINERS[:-1])} or {CONTAINERS[-1]}"
        raise UnreadableInput(f"not a sound or video of {known}") from error
    with container:
        try:
            yield av, container
        except broken as error:
            why = getattr(error, "strerror", None) or type(error).__name__
            raise UnreadableInput(f"broken sound or video: {why}") from error


def _whitelist(av: Any) -> str:
    """The full names of the containers: FFmpeg compares whole names such as `mov,mp4,m4a,...`."""
    names = []
    for name in sorted(av.formats_available):
        if set(name.split(",")) & set(CONTAINERS):
            names.append(name)
    return ",".join([*names, *CONTAINERS])
