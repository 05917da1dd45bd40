"""Outlines of the products of the synthetic shop, polygons in the unit square (y points down).

Every product is a list of pieces, painted in order. A "round" product is a control polygon whose
corners are cut until it is a curve (Chaikin, 1974); an "angular" one is a different polygon.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]
Paint = Literal[
    "pattern", "base", "deep", "trim", "inside", "wood", "metal", "paper", "dark", "glow"
]
Shade = Literal["flat", "cylinder", "facets", "dome"]


@dataclass(frozen=True)
class Piece:
    """One painted outline.

    Attributes:
        points: (p, 2) corners.
        shade: how it is lit.
        stroke: width of a line along the points; 0 fills the polygon they enclose.
    """

    points: Points
    paint: Paint
    shade: Shade = "flat"
    stroke: float = 0.0


def smooth(points: Sequence[tuple[float, float]] | Points, times: int = 4) -> Points:
    """A closed polygon with its corners cut `times` times: each edge keeps its middle half.

    Example:
        >>> len(smooth([(0, 0), (1, 0), (1, 1), (0, 1)], times=2))
        16
    """
    curve = np.asarray(points, dtype=np.float64)
    for _ in range(times):
        following = np.roll(curve, -1, axis=0)
        pair = np.stack([0.75 * curve + 0.25 * following, 0.25 * curve + 0.75 * following], axis=1)
        curve = pair.reshape(-1, 2)
    return curve


def _ellipse(x: float, y: float, rx: float, ry: float, corners: int = 72) -> Points:
    """A stretched regular polygon; with many corners an ellipse."""
    angle = 2 * np.pi * (np.arange(corners) + 0.5) / corners
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], axis=1)


def _lathe(profile: Sequence[tuple[float, float]]) -> Points:
    """The outline of a body of revolution: (half width, y) down one side and up the other."""
    half, y = np.asarray(profile, dtype=np.float64).T
    right = np.stack([0.5 + half, y], axis=1)
    left = np.stack([0.5 - half, y], axis=1)
    return np.concatenate([right, left[::-1]])


def _turned(
    profile: Sequence[tuple[float, float]], is_round: bool, rim: float = 0.0
) -> list[Piece]:
    """A patterned vessel from (half width, y); `rim` is the half height of its opening."""
    top_width, top = profile[0]
    if is_round:
        # Doubling the top corners keeps the mouth as wide as its rim while the rest is rounded.
        steps = np.asarray([profile[0], profile[0], profile[0], *profile[1:]], dtype=np.float64)
        parts = [Piece(smooth(_lathe([(h, y) for h, y in steps])), "pattern", "cylinder")]
    else:
        parts = [Piece(_lathe(profile), "pattern", "facets")]
    if rim:
        corners = 72 if is_round else 6
        stretch = 1.0 if is_round else 1 / np.cos(np.pi / 6)
        parts.append(Piece(_ellipse(0.5, top, top_width * stretch, rim, corners), "deep"))
        inner = 0.88 * top_width * stretch
        parts.append(Piece(_ellipse(0.5, top + 0.004, inner, 0.72 * rim, corners), "inside"))
    return parts


def _box(left: float, top: float, right: float, bottom: float) -> Points:
    return np.array([(left, top), (right, top), (right, bottom), (left, bottom)], dtype=np.float64)


def _arc(x: float, y: float, rx: float, ry: float, start: float, stop: float) -> Points:
    """Points along an arc of an ellipse; angles in turns, 0 to the right, 0.25 downwards."""
    angle = 2 * np.pi * np.linspace(start, stop, 40)
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], axis=1)


def _path(*points: tuple[float, float]) -> Points:
    return np.array(points, dtype=np.float64)


def mug(is_round: bool) -> list[Piece]:
    """A mug with a handle at the right."""
    if is_round:
        handle = Piece(_arc(0.73, 0.52, 0.15, 0.15, -0.25, 0.25), "base", stroke=0.055)
        profile = [(0.28, 0.26), (0.32, 0.45), (0.33, 0.74), (0.15, 0.83)]
    else:
        handle = Piece(
            _path((0.70, 0.36), (0.90, 0.36), (0.86, 0.64), (0.68, 0.68)), "base", stroke=0.055
        )
        profile = [(0.28, 0.26), (0.22, 0.82)]
    return [handle, *_turned(profile, is_round, rim=0.055)]


def teapot(is_round: bool) -> list[Piece]:
    """A teapot with spout, lid and handle."""
    if is_round:
        spout = [(0.32, 0.50), (0.16, 0.46), (0.04, 0.28), (0.0, 0.36), (0.10, 0.70), (0.34, 0.78)]
        body = smooth(_lathe([(0.08, 0.34), (0.30, 0.36), (0.36, 0.86), (0.14, 0.84)]))
        return [
            Piece(_arc(0.74, 0.56, 0.18, 0.15, -0.25, 0.25), "deep", stroke=0.045),
            Piece(smooth(spout, 3), "base"),
            Piece(body, "pattern", "cylinder"),
            Piece(smooth(_lathe([(0.03, 0.27), (0.14, 0.29), (0.18, 0.40)])), "base", "cylinder"),
            Piece(_ellipse(0.5, 0.255, 0.038, 0.038), "deep"),
        ]
    return [
        Piece(_path((0.66, 0.40), (0.93, 0.36), (0.91, 0.62), (0.72, 0.72)), "deep", stroke=0.05),
        Piece(_path((0.32, 0.52), (0.10, 0.34), (0.03, 0.37), (0.20, 0.72), (0.32, 0.76)), "base"),
        Piece(_lathe([(0.17, 0.34), (0.30, 0.50), (0.26, 0.82)]), "pattern", "facets"),
        Piece(_lathe([(0.10, 0.26), (0.20, 0.34)]), "base", "facets"),
        Piece(_path((0.5, 0.18), (0.545, 0.26), (0.455, 0.26)), "deep"),
    ]


def bowl(is_round: bool) -> list[Piece]:
    """A wide bowl on a foot."""
    foot = Piece(_lathe([(0.13, 0.76), (0.16, 0.82)]), "deep")
    if is_round:
        profile = [(0.41, 0.38), (0.41, 0.62), (0.26, 0.80), (0.1, 0.80)]
    else:
        profile = [(0.41, 0.38), (0.35, 0.60), (0.17, 0.79)]
    return [foot, *_turned(profile, is_round, rim=0.085)]


def vase(is_round: bool) -> list[Piece]:
    """A vase with a neck."""
    if is_round:
        profile = [(0.13, 0.15), (0.06, 0.33), (0.44, 0.44), (0.36, 0.88), (0.12, 0.88)]
    else:
        profile = [(0.15, 0.15), (0.10, 0.30), (0.29, 0.56), (0.16, 0.87)]
    return _turned(profile, is_round, rim=0.032)


def lamp(is_round: bool) -> list[Piece]:
    """A table lamp: patterned shade, plain stem and base."""
    stem = Piece(_box(0.48, 0.5, 0.52, 0.84), "metal", "cylinder")
    if is_round:
        shade = smooth(_lathe([(0.10, 0.10), (0.36, 0.14), (0.40, 0.58), (0.36, 0.60)]), 3)
        foot = Piece(smooth(_lathe([(0.06, 0.76), (0.26, 0.86), (0.26, 0.9)])), "deep", "cylinder")
        return [stem, foot, Piece(shade, "pattern", "cylinder")]
    foot = Piece(_lathe([(0.17, 0.83), (0.20, 0.89)]), "deep", "facets")
    shade = _lathe([(0.17, 0.12), (0.38, 0.57)])
    return [stem, foot, Piece(shade, "pattern", "facets")]


def chair(is_round: bool) -> list[Piece]:
    """A chair seen from the front, with an upholstered back and seat."""
    legs = [
        Piece(_path((0.30, 0.66), (0.24, 0.94)), "wood", stroke=0.035),
        Piece(_path((0.70, 0.66), (0.76, 0.94)), "wood", stroke=0.035),
        Piece(_path((0.37, 0.66), (0.35, 0.87)), "wood", stroke=0.028),
        Piece(_path((0.63, 0.66), (0.65, 0.87)), "wood", stroke=0.028),
    ]
    if is_round:
        back = smooth([(0.22, 0.06), (0.78, 0.06), (0.80, 0.60), (0.20, 0.60)], 4)
        seat = smooth([(0.14, 0.54), (0.86, 0.54), (0.88, 0.72), (0.12, 0.72)], 3)
    else:
        back = _path((0.27, 0.09), (0.73, 0.09), (0.70, 0.56), (0.30, 0.56))
        seat = _path((0.25, 0.55), (0.75, 0.55), (0.83, 0.69), (0.17, 0.69))
    return [*legs, Piece(back, "pattern", "dome"), Piece(seat, "base", "flat")]


def clock(is_round: bool) -> list[Piece]:
    """A wall clock: a patterned rim around a paper dial."""
    corners = 96 if is_round else 6
    hands = [
        Piece(_path((0.5, 0.5), (0.5, 0.33)), "dark", stroke=0.018),
        Piece(_path((0.5, 0.5), (0.60, 0.55)), "dark", stroke=0.022),
        Piece(_ellipse(0.5, 0.5, 0.022, 0.022), "deep"),
    ]
    ray, angles = np.array([0.185, 0.205]), np.arange(12) * np.pi / 6
    marks = [
        Piece(np.stack([0.5 + a * ray, 0.5 + b * ray], axis=1), "dark", stroke=0.010)
        for a, b in zip(np.cos(angles), np.sin(angles), strict=True)
    ]
    return [
        Piece(_ellipse(0.5, 0.5, 0.42, 0.42, corners), "pattern", "dome"),
        Piece(_ellipse(0.5, 0.5, 0.25, 0.25, corners), "deep"),
        Piece(_ellipse(0.5, 0.5, 0.235, 0.235, corners), "paper"),
        *marks,
        *hands,
    ]


def cushion(is_round: bool) -> list[Piece]:
    """A cushion with piping."""
    if is_round:
        return [
            Piece(_ellipse(0.5, 0.5, 0.42, 0.40), "deep"),
            Piece(_ellipse(0.5, 0.5, 0.405, 0.385), "pattern", "dome"),
            Piece(_ellipse(0.5, 0.49, 0.035, 0.032), "deep"),
        ]
    outline = np.array(
        [(0.08, 0.10), (0.5, 0.15), (0.92, 0.10), (0.87, 0.5),
         (0.92, 0.90), (0.5, 0.85), (0.08, 0.90), (0.13, 0.5)]
    )  # fmt: skip
    inner = 0.5 + 0.965 * (outline - 0.5)
    return [Piece(outline, "deep"), Piece(inner, "pattern", "dome")]


def tote(is_round: bool) -> list[Piece]:
    """A shopping bag with two handles."""
    if is_round:
        handle = Piece(_arc(0.5, 0.36, 0.17, 0.26, 0.5, 1.0), "deep", stroke=0.035)
        body = smooth([(0.22, 0.30), (0.78, 0.30), (0.98, 0.98), (0.02, 0.98)], 4)
        return [handle, Piece(body, "pattern", "dome")]
    handle = Piece(
        _path((0.33, 0.36), (0.36, 0.10), (0.64, 0.10), (0.67, 0.36)), "deep", stroke=0.035
    )
    body = _path((0.17, 0.34), (0.83, 0.34), (0.79, 0.90), (0.21, 0.90))
    return [handle, Piece(body, "pattern", "flat"), Piece(_box(0.17, 0.34, 0.83, 0.385), "deep")]


def shirt(is_round: bool) -> list[Piece]:
    """A T-shirt laid flat: crew neck and curved hem, or V-neck and straight hem."""
    left = [(0.36, 0.10), (0.24, 0.14), (0.04, 0.34), (0.16, 0.46), (0.25, 0.39)]
    hem = [(0.23, 0.86), (0.5, 0.93), (0.77, 0.86)] if is_round else [(0.25, 0.9), (0.75, 0.9)]
    right = [(1 - x, y) for x, y in reversed(left)]
    outline = _path(*left, *hem, *right)
    if is_round:
        outline = smooth(np.repeat(outline, 2, axis=0), 3)
        neck = [
            Piece(_arc(0.5, 0.115, 0.125, 0.105, 0.0, 0.5), "inside"),
            Piece(_arc(0.5, 0.115, 0.125, 0.105, 0.0, 0.5), "deep", stroke=0.03),
        ]
    else:
        neck = [
            Piece(_path((0.34, 0.09), (0.66, 0.09), (0.5, 0.33)), "deep"),
            Piece(_path((0.375, 0.09), (0.625, 0.09), (0.5, 0.275)), "inside"),
        ]
    return [Piece(outline, "pattern", "dome"), *neck]


def backpack(is_round: bool) -> list[Piece]:
    """A backpack with a front pocket."""
    loop = Piece(_arc(0.5, 0.14, 0.09, 0.08, 0.5, 1.0), "deep", stroke=0.03)
    if is_round:
        body = smooth([(0.14, 0.02), (0.86, 0.02), (0.90, 0.96), (0.10, 0.96)], 4)
        pocket = smooth([(0.24, 0.56), (0.76, 0.56), (0.78, 0.90), (0.22, 0.90)], 3)
        straps = [Piece(_arc(x, 0.60, 0.07, 0.20, 0, 1), "deep") for x in (0.17, 0.83)]
    else:
        body = _path(
            (0.24, 0.13), (0.76, 0.13), (0.82, 0.30), (0.80, 0.91), (0.20, 0.91), (0.18, 0.3)
        )
        pocket = _path((0.30, 0.60), (0.70, 0.60), (0.68, 0.85), (0.32, 0.85))
        straps = [Piece(_box(x - 0.05, 0.42, x + 0.05, 0.80), "deep") for x in (0.18, 0.82)]
    zip_line = Piece(_path((0.24, 0.50), (0.76, 0.50)), "dark", stroke=0.012)
    return [loop, *straps, Piece(body, "pattern", "dome"), Piece(pocket, "base", "flat"), zip_line]


def bottle(is_round: bool) -> list[Piece]:
    """A drinking bottle with a metal cap."""
    cap = Piece(_box(0.41, 0.06, 0.59, 0.17), "metal", "cylinder")
    if is_round:
        body = smooth(_lathe([(0.08, 0.15), (0.12, 0.22), (0.30, 0.34), (0.25, 0.93), (0.2, 0.94)]))
        return [cap, Piece(body, "pattern", "cylinder")]
    body = _lathe([(0.10, 0.17), (0.24, 0.30), (0.24, 0.93)])
    return [cap, Piece(body, "pattern", "facets")]


DRAWINGS: Final[dict[str, Callable[[bool], list[Piece]]]] = {
    "mug": mug,
    "teapot": teapot,
    "bowl": bowl,
    "vase": vase,
    "lamp": lamp,
    "chair": chair,
    "clock": clock,
    "cushion": cushion,
    "tote bag": tote,
    "T-shirt": shirt,
    "backpack": backpack,
    "bottle": bottle,
}
