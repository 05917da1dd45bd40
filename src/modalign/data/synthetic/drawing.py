"""Product pictures of the synthetic shop, drawn from the visual attributes of the items.

They are drawn at three times their size and averaged down, so that edges are smooth. Palette,
pattern and shape, which the tastes of users depend on, are large in the frame. Background,
position, size, mirroring and pattern scale vary between items and carry no information.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from modalign.core.seeds import numpy_generator
from modalign.data.synthetic.shapes import DRAWINGS, Piece, Points, Shade
from modalign.data.synthetic.world import World

Colour = tuple[int, int, int]
Field = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

SIZE: Final = 128
_LARGE: Final = 3 * SIZE
_VARIANTS: Final = 6

# Palette -> base colour, light partner used in patterns, accent.
_PALETTES: Final[dict[str, tuple[Colour, Colour, Colour]]] = {
    "tomato": ((214, 58, 44), (255, 231, 214), (122, 22, 24)),
    "mustard": ((232, 176, 32), (255, 248, 220), (150, 92, 8)),
    "forest": ((38, 116, 70), (224, 240, 208), (14, 62, 40)),
    "sky": ((98, 186, 226), (244, 252, 255), (24, 104, 160)),
    "navy": ((34, 52, 112), (214, 224, 246), (12, 20, 58)),
    "plum": ((122, 56, 142), (240, 220, 246), (66, 20, 86)),
    "blush": ((242, 150, 172), (255, 242, 244), (190, 64, 104)),
    "charcoal": ((66, 66, 72), (232, 232, 234), (22, 22, 26)),
}
_NEUTRALS: Final[dict[str, Colour]] = {
    "wood": (196, 152, 106),
    "metal": (176, 180, 186),
    "paper": (250, 248, 242),
    "dark": (44, 44, 50),
}
_BACKGROUNDS: Final = (
    (246, 243, 238),
    (238, 241, 244),
    (244, 240, 246),
    (240, 244, 238),
    (248, 244, 232),
    (236, 236, 236),
)


@dataclass(frozen=True)
class Look:
    """The visual attributes of an item by name, and its category."""

    category: str
    palette: str
    pattern: str
    shape: str


def look_of(world: World, item: int) -> Look:
    """The look of one item."""
    names = ("category", "palette", "pattern", "shape")
    return Look(*(world.values(name)[world.codes[name][item, 0]] for name in names))


def draw(look: Look, rng: np.random.Generator) -> Image.Image:
    """Draw one product.

    Example:
        >>> picture = draw(Look("mug", "sky", "dots", "round"), np.random.default_rng(1))
        >>> picture.size, picture.mode
        ((128, 128), 'RGB')
    """
    background = _BACKGROUNDS[int(rng.integers(len(_BACKGROUNDS)))]
    canvas = _backdrop(background).copy()
    scale = rng.uniform(0.90, 1.0)
    shift = rng.uniform(-0.02, 0.02, size=2)
    mirror = bool(rng.random() < 0.5)
    tone = rng.uniform(0.94, 1.06)
    variant = int(rng.integers(_VARIANTS))
    parts = [
        _place(part, scale, shift, mirror)
        for part in DRAWINGS[look.category](look.shape == "round")
    ]
    _cast_shadow(canvas, parts, look.category)
    for part in parts:
        _paint(canvas, part, look, tone, variant, background)
    return canvas.resize((SIZE, SIZE), Image.Resampling.BOX)


def draw_item(world: World, item: int) -> Image.Image:
    """The picture of one item; it depends only on the seed of the world and the item."""
    rng = numpy_generator(world.seed, "synthetic", "picture", item)
    return draw(look_of(world, item), rng)


def encode(picture: Image.Image) -> bytes:
    """The picture as the bytes of a JPEG file."""
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=92, subsampling=0)
    return buffer.getvalue()


def _place(part: Piece, scale: float, shift: Points, mirror: bool) -> Piece:
    points = part.points * np.array([-1, 1]) + np.array([1, 0]) if mirror else part.points
    return Piece(0.5 + scale * (points - 0.5) + shift, part.paint, part.shade, scale * part.stroke)


@lru_cache(maxsize=16)
def _backdrop(colour: Colour) -> Image.Image:
    """A wall that becomes lighter towards the top, and a floor."""
    height = np.linspace(0, 1, _LARGE)[:, None]
    floor = 1 / (1 + np.exp(-(height - 0.80) * 60))
    light = 1.02 - 0.05 * height - 0.06 * floor
    rows = np.clip(np.asarray(colour)[None, None, :] * light[:, :, None], 0, 255)
    return Image.fromarray(np.repeat(rows, _LARGE, axis=1).astype(np.uint8), "RGB")


def _cast_shadow(canvas: Image.Image, parts: list[Piece], category: str) -> None:
    """A soft shadow: below standing products, behind hanging or lying ones."""
    points = np.concatenate([part.points for part in parts])
    (left, _), (right, bottom) = points.min(axis=0), points.max(axis=0)
    small = _LARGE // 4
    mask = Image.new("L", (small, small), 0)
    pen = ImageDraw.Draw(mask)
    if category in ("clock", "cushion", "T-shirt"):
        for part in parts[:2]:
            pen.polygon(_pixels(part.points + np.array([0.012, 0.03]), small), fill=110)
    else:
        box = [left + 0.02, bottom - 0.045, right - 0.02, bottom + 0.035]
        pen.ellipse([small * edge for edge in box], fill=130)
    blurred = mask.filter(ImageFilter.GaussianBlur(small * 0.018)).resize(canvas.size)
    canvas.paste((52, 48, 56), (0, 0), blurred)


def _pixels(points: Points, size: int) -> list[tuple[float, float]]:
    return [(x, y) for x, y in (points * size).tolist()]


def _paint(
    canvas: Image.Image, part: Piece, look: Look, tone: float, variant: int, wall: Colour
) -> None:
    mask = Image.new("L", canvas.size, 0)
    pen = ImageDraw.Draw(mask)
    corners = _pixels(part.points, _LARGE)
    if part.stroke:
        width = round(part.stroke * _LARGE)
        pen.line(corners, fill=255, width=width, joint="curve")
        for x, y in (corners[0], corners[-1]):
            pen.ellipse([x - width / 2, y - width / 2, x + width / 2, y + width / 2], fill=255)
    else:
        pen.polygon(corners, fill=255)
    bounds = mask.getbbox()
    if bounds is None:
        return
    fill = _fill(part, look, tone, variant, bounds)
    shade = _light(part.shade).resize(fill.size).convert("RGB")
    canvas.paste(ImageChops.multiply(fill, shade), bounds[:2], mask.crop(bounds))


def _fill(
    part: Piece, look: Look, tone: float, variant: int, bounds: tuple[int, int, int, int]
) -> Image.Image:
    """The unshaded paint of a part, of the size of its bounds."""
    size = (bounds[2] - bounds[0], bounds[3] - bounds[1])
    base, partner, accent = (_toned(colour, tone) for colour in _PALETTES[look.palette])
    if part.paint in _NEUTRALS:
        return Image.new("RGB", size, _NEUTRALS[part.paint])
    if part.paint == "inside":
        return Image.new("RGB", size, _toned(accent, 0.8))
    if part.paint == "deep":
        return Image.new("RGB", size, _toned(base, 0.74))
    fill = Image.new("RGB", size, base)
    if part.paint == "pattern":
        light, dark = pattern_masks(look.pattern, variant, _LARGE)
        fill.paste(partner, (0, 0), light.crop(bounds))
        fill.paste(accent, (0, 0), dark.crop(bounds))
    return fill


def _toned(colour: Colour, tone: float) -> Colour:
    red, green, blue = (min(255, round(channel * tone)) for channel in colour)
    return red, green, blue


@lru_cache(maxsize=8)
def _light(shade: Shade) -> Image.Image:
    """The brightness of each point of the bounds of a part, white for full brightness."""
    across, down = np.meshgrid(np.linspace(-1, 1, 96), np.linspace(-1, 1, 96))
    if shade == "cylinder":
        light = 1.0 - 0.42 * np.clip(np.abs(across + 0.25), 0, 2) ** 1.7
    elif shade == "facets":
        light = np.select([across < -0.42, across < 0.42], [0.86, 1.0], 0.68)
    elif shade == "dome":
        light = 1.0 - 0.16 * ((across + 0.25) ** 2 + (down + 0.3) ** 2)
    else:
        light = 1.0 - 0.05 * (down + 1)
    return Image.fromarray((255 * np.clip(light, 0.35, 1)).astype(np.uint8), "L")


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
    light, dark = _areas(pattern, u, v)
    masks = [Image.fromarray(one.astype(np.uint8) * 255, "L") for one in (light, dark)]
    return masks[0], masks[1]


def _areas(pattern: str, u: Field, v: Field) -> tuple[Mask, Mask]:
    """Where the partner and the accent are, at places in units of the pattern's period."""
    nothing = np.zeros(u.shape, dtype=bool)
    if pattern == "plain":
        return nothing, nothing
    if pattern == "stripes":
        return u % 1 < 0.5, nothing
    if pattern == "dots":
        a, b = (u + 0.5 * (np.floor(v) % 2)) % 1 - 0.5, v % 1 - 0.5
        return np.hypot(a, b) < 0.32, nothing
    if pattern == "checks":
        across, down = u % 1.2 < 0.6, v % 1.2 < 0.6
        return across & down, ~across & ~down
    if pattern == "floral":
        a = (u / 1.35 + 0.5 * (np.floor(v / 1.35) % 2)) % 1 - 0.5
        b = (v / 1.35) % 1 - 0.5
        radius, angle = np.hypot(a, b), np.arctan2(b, a)
        heart = radius < 0.12
        return (radius < 0.32 + 0.14 * np.cos(5 * angle)) & ~heart, heart
    assert pattern == "zigzag", pattern
    place = (v + np.abs(u % 1.6 - 0.8)) % 1.2
    return place < 0.4, (place > 0.6) & (place < 0.8)
