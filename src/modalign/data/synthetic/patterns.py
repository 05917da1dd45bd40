"""Patterns of the products of the synthetic shop, as masks for the colours."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image

Field = npt.NDArray[np.float64]


@lru_cache(maxsize=64)
def pattern_masks(pattern: str, variant: int, size: int) -> tuple[Image.Image, Image.Image]:
    """The areas of the light partner colour and of the accent colour of a palette.

    Args:
        pattern: one of the world's patterns.
        variant: number of the scale and rotation of the pattern, which carry no information.
        size: side of the square masks in pixels.

    Returns:
        Two masks of mode "L"; outside both the base colour remains.
    """
    period = (0.135, 0.15, 0.165)[variant % 3]
    # A zigzag rotated by 45 degrees would be a staircase, so it is rotated by 90 instead.
    slant = np.pi / 2 if pattern == "zigzag" else np.pi / 4
    turn = (0.0, slant)[variant // 3 % 2]
    y, x = np.mgrid[0:size, 0:size] / size - 0.5
    u = (np.cos(turn) * x + np.sin(turn) * y) / period
    v = (np.cos(turn) * y - np.sin(turn) * x) / period
    light, dark = _PATTERNS[pattern](u, v)
    return _mask(light), _mask(dark)


def _mask(inside: npt.NDArray[np.bool_]) -> Image.Image:
    return Image.fromarray(inside.astype(np.uint8) * 255, "L")


def _plain(u: Field, v: Field) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    nothing = np.zeros(u.shape, dtype=bool)
    return nothing, nothing


def _stripes(u: Field, v: Field) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    place = u % 1
    return place < 0.5, np.zeros(u.shape, dtype=bool)


def _dots(u: Field, v: Field) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    row = np.floor(v)
    a, b = (u + 0.5 * (row % 2)) % 1 - 0.5, v % 1 - 0.5
    return np.hypot(a, b) < 0.32, np.zeros(u.shape, dtype=bool)


def _checks(u: Field, v: Field) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    across, down = u % 1.2 < 0.6, v % 1.2 < 0.6
    return across & down, ~across & ~down


def _floral(u: Field, v: Field) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    stretch = 1.35
    row = np.floor(v / stretch)
    a = (u / stretch + 0.5 * (row % 2)) % 1 - 0.5
    b = (v / stretch) % 1 - 0.5
    radius, angle = np.hypot(a, b), np.arctan2(b, a)
    petals = radius < 0.32 + 0.14 * np.cos(5 * angle)
    heart = radius < 0.12
    return petals & ~heart, heart


def _zigzag(u: Field, v: Field) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    fold = np.abs(u % 1.6 - 0.8)
    place = (v + fold) % 1.2
    return place < 0.4, (place > 0.6) & (place < 0.8)


_PATTERNS = {
    "plain": _plain,
    "stripes": _stripes,
    "dots": _dots,
    "checks": _checks,
    "floral": _floral,
    "zigzag": _zigzag,
}
