"""Titles and descriptions of the items of the synthetic shop, made from textual attributes.

A text states category, material, occasion, qualities and brand, in one of many wordings, and
nothing about colour, pattern or shape.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from modalign.core.seeds import numpy_generator
from modalign.data.synthetic import phrases
from modalign.data.synthetic.world import CATEGORIES, World

_TITLES = (
    "{brand} {model} {material} {noun} {occasion}",
    "{quality_capital} {material} {noun} {occasion} by {brand}",
    "{model}, {a_quality} {material} {noun} {occasion}",
    "{brand} {quality} {material} {noun} {occasion}",
    "{material_capital} {noun} {occasion}, {quality}, by {brand}",
)


@dataclass(frozen=True)
class Text:
    """Title and description of one item."""

    title: str
    description: str


def write_texts(world: World) -> list[Text]:
    """One text per item, in the order of the items.

    Example:
        >>> from modalign.data.synthetic.world import make_world
        >>> texts = write_texts(make_world(seed=1, n_users=1, n_items=3))
        >>> len(texts), all(text.description.endswith(".") for text in texts)
        (3, True)
    """
    rng = numpy_generator(world.seed, "synthetic", "texts")
    return [_write(world, item, rng) for item in range(world.n_items)]


def _write(world: World, item: int, rng: np.random.Generator) -> Text:
    value = {name: world.values(name)[codes[item, 0]] for name, codes in world.codes.items()}
    first, second = (world.values("quality")[code] for code in world.codes["quality"][item])
    category = CATEGORIES[world.codes["category"][item, 0]]
    material = _pick(rng, phrases.MATERIALS[category][value["material"]])
    words = {
        "brand": value["brand"],
        "model": _pick(rng, phrases.MODELS),
        "noun": _pick(rng, phrases.NOUNS[category]),
        "material": material,
        "material_capital": _capital(material),
        "occasion": _pick(rng, phrases.OCCASIONS[value["occasion"]][0]),
        "quality": _pick(rng, phrases.QUALITIES[first][0]),
    }
    words["a_quality"], words["a_material"] = map(_with_article, (words["quality"], material))
    words["quality_capital"] = _capital(words["quality"])
    sentences = [
        _pick(rng, phrases.OCCASIONS[value["occasion"]][1:]),
        _pick(rng, phrases.QUALITIES[first][1:]),
        _pick(rng, phrases.QUALITIES[second][1:]),
    ]
    rng.shuffle(sentences)
    opening = _pick(rng, phrases.OPENINGS).format(**words)
    closing = _pick(rng, phrases.CLOSINGS)
    title = _capital(_pick(rng, _TITLES).format(**words))
    return Text(title, " ".join([opening, *sentences, closing]).strip())


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[int(rng.integers(len(options)))]


def _with_article(words: str) -> str:
    return f"{'an' if words[0].lower() in 'aeiou' else 'a'} {words}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
