"""The latent model of the synthetic shop: items, tastes of users, purchases.

Everything here is a number; `drawing` and `texts` make pictures and texts of it. An item has

- **visual attributes** (palette, pattern, shape), which only its picture shows;
- **textual attributes** (material, occasion, qualities, brand), which only its text states;
- a **category**, which both show.

Visual attributes are drawn independently of all others, so that neither modality can replace the
other. A user has a taste for every value of every attribute, and three weights for the importance
of visual attributes, textual attributes and category. The utility of item i for user u is

    s(u, i) = strength * (w_v z_v(u, i) + w_t z_t(u, i) + w_c z_c(u, i)) + popularity(i)

where z_v, z_t, z_c are products of tastes and attributes standardised over the items, and |w| = 1.
The user buys the n_u items of largest s(u, i) + Gumbel noise, which is sampling without
replacement from softmax(s(u, .)) (Kool, van Hoof and Welling, "Stochastic beams and where to find
them", 2019).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from modalign.core.seeds import numpy_generator
from modalign.core.settings import DEFAULT_SEED
from modalign.data.synthetic.phrases import BRANDS, MATERIALS, OCCASIONS, QUALITIES
from modalign.errors import ConfigError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

CATEGORIES: Final = tuple(MATERIALS)
FAMILIES: Final = ("wood", "plant", "clay", "textile", "metal", "recycled")
VISUAL: Final[Mapping[str, tuple[str, ...]]] = {
    "palette": ("tomato", "mustard", "forest", "sky", "navy", "plum", "blush", "charcoal"),
    "pattern": ("plain", "stripes", "dots", "checks", "floral", "zigzag"),
    "shape": ("round", "angular"),
}
TEXTUAL: Final[Mapping[str, tuple[str, ...]]] = {
    "material": FAMILIES,
    "occasion": tuple(OCCASIONS),
    "quality": tuple(QUALITIES),
    "brand": BRANDS,
}
_GROUPS: Final = {"visual": tuple(VISUAL), "textual": tuple(TEXTUAL), "category": ("category",)}
PARTS: Final = ("visual", "textual", "category", "popularity")

# Weight of an attribute relative to the others of its modality.
_EMPHASIS: Final[Mapping[str, float]] = {
    "palette": 0.8,
    "pattern": 1.3,
    "shape": 0.8,
    "material": 1.2,
    "occasion": 0.8,
    "quality": 0.6,
    "brand": 1.0,
    "category": 1.0,
}
_OPENING: Final = 1_672_531_200  # 1 January 2023, the earliest purchase
_YEAR: Final = 365 * 24 * 3600
_BLOCK: Final = 1024


@dataclass(frozen=True)
class World:
    """The latent values of a synthetic shop.

    Attributes:
        codes: value of each attribute per item, (n_items, m) integers; m is 2 for "quality",
            as an item has two, and 1 otherwise.
        tastes: per attribute, the taste of each user for each value, (n_users, n_values).
        weights: (n_users, 3), weights of visual, textual and category tastes; rows of norm 1.
        popularity: (n_items,), added to every utility.
    """

    seed: int
    codes: Mapping[str, Ints]
    tastes: Mapping[str, Floats]
    weights: Floats
    popularity: Floats
    strength: float

    @property
    def n_users(self) -> int:
        """Number of users."""
        return len(self.weights)

    @property
    def n_items(self) -> int:
        """Number of items."""
        return len(self.popularity)

    def values(self, attribute: str) -> tuple[str, ...]:
        """The names of the values that `codes[attribute]` numbers."""
        if attribute == "category":
            return CATEGORIES
        return {**VISUAL, **TEXTUAL}[attribute]

    def utilities(self, users: Ints, parts: Sequence[str] = PARTS) -> Floats:
        """s(u, i) of the module's formula for a block of users, from the named parts only.

        Args:
            users: (B,) rows.
            parts: any of "visual", "textual", "category", "popularity".

        Returns:
            (B, n_items), held in memory as a whole: pass blocks of users.

        Example:
            >>> world = make_world(seed=1, n_users=20, n_items=30)
            >>> world.utilities(np.arange(4), parts=("visual",)).shape
            (4, 30)
        """
        total = np.zeros((len(users), self.n_items))
        for column, part in enumerate(("visual", "textual", "category")):
            if part in parts:
                weight = self.strength * self.weights[users, column, None]
                total += weight * (self._scaled_tastes[part][users] @ self._designs[part].T)
        if "popularity" in parts:
            total += self.popularity
        return total

    @cached_property
    def _designs(self) -> dict[str, Floats]:
        return {
            part: np.hstack([self._one_hot(a) for a in names]) for part, names in _GROUPS.items()
        }

    @cached_property
    def _scaled_tastes(self) -> dict[str, Floats]:
        """Tastes divided by the deviation of their own product over the items."""
        scaled = {}
        for part, names in _GROUPS.items():
            taste = np.hstack([self.tastes[name] for name in names])
            design = self._designs[part]
            covariance = design.T @ design / len(design)
            deviation = np.sqrt(np.einsum("ud,de,ue->u", taste, covariance, taste))
            scaled[part] = taste / np.maximum(deviation, 1e-9)[:, None]
        return scaled

    def _one_hot(self, attribute: str) -> Floats:
        codes = self.codes[attribute]
        matrix = np.zeros((len(codes), len(self.values(attribute))))
        np.add.at(matrix, (np.arange(len(codes))[:, None], codes), _EMPHASIS[attribute])
        centred: Floats = matrix - matrix.mean(axis=0)
        return centred


def make_world(
    seed: int = DEFAULT_SEED, n_users: int = 1200, n_items: int = 1000, strength: float = 3.0
) -> World:
    """Draw items, tastes and popularity.

    Args:
        seed: the only source of randomness.
        n_users: number of users, at least 1.
        n_items: number of items, at least 1.
        strength: factor of the tastes; with 0 only popularity and chance remain.

    Raises:
        ConfigError: a number is out of its bounds.
    """
    for name, value, least in (("n_users", n_users, 1), ("n_items", n_items, 1)):
        if value < least:
            raise ConfigError(f"{name} of at least {least}", str(value), f"give a larger {name}")
    if not 0 <= strength < float("inf"):
        raise ConfigError(
            "a finite strength of at least 0", str(strength), "give for example 3, the default"
        )
    codes = _draw_items(numpy_generator(seed, "synthetic", "items"), n_items)
    rng = numpy_generator(seed, "synthetic", "users")
    sizes = {name: len(values) for name, values in {**VISUAL, **TEXTUAL}.items()}
    sizes["category"] = len(CATEGORIES)
    tastes = {}
    for name, size in sizes.items():
        drawn = rng.standard_normal((n_users, size))
        # Heavier tails than normal: a few strong likes rather than many weak ones.
        tastes[name] = np.sign(drawn) * np.abs(drawn) ** 1.5
    # With a small concentration one of the three weights dominates for most users.
    weights = np.sqrt(rng.dirichlet((0.9, 0.9, 0.35), size=n_users))
    popularity = 0.55 * numpy_generator(seed, "synthetic", "popularity").standard_normal(n_items)
    return World(seed, codes, tastes, weights, popularity, strength)


def _draw_items(rng: np.random.Generator, n_items: int) -> dict[str, Ints]:
    """Attribute values per item; visual ones are drawn independently of all others."""
    category = rng.integers(len(CATEGORIES), size=n_items)
    allowed = np.array([[family in MATERIALS[c] for family in FAMILIES] for c in CATEGORIES])
    chance = rng.random((n_items, len(FAMILIES))) * allowed[category]
    first = rng.integers(len(QUALITIES), size=n_items)
    second = (first + rng.integers(1, len(QUALITIES), size=n_items)) % len(QUALITIES)
    codes = {
        "category": category[:, None],
        "material": chance.argmax(axis=1)[:, None],
        "occasion": rng.integers(len(OCCASIONS), size=(n_items, 1)),
        "quality": np.stack([first, second], axis=1),
        "brand": rng.integers(len(BRANDS), size=(n_items, 1)),
    }
    for name, values in VISUAL.items():
        codes[name] = rng.integers(len(values), size=(n_items, 1))
    return codes


def sample_interactions(world: World, mean_per_user: float = 11.0) -> tuple[Ints, Ints, Ints]:
    """The purchases of the users: n_u items each, without replacement, from softmax(s(u, .)).

    n_u is log-normal with the given mean, at least 5 and at most 4 times the mean.

    Args:
        world: items, tastes and popularity.
        mean_per_user: average number of items a user buys, at least 5.

    Returns:
        Rows of users, rows of items and integer seconds, sorted by user and time.

    Raises:
        ConfigError: the mean is below 5, or above a quarter of the number of items.
    """
    if not 5 <= mean_per_user <= world.n_items / 4:
        expected = f"mean_per_user from 5 to a quarter of the items ({world.n_items / 4:g})"
        got = f"{mean_per_user:g}"
        raise ConfigError(expected, got, "ask for fewer interactions or more items")
    rng = numpy_generator(world.seed, "synthetic", "interactions")
    spread = 0.35
    drawn = rng.lognormal(np.log(mean_per_user) - spread**2 / 2, spread, size=world.n_users)
    counts = np.clip(np.rint(drawn), 5, int(4 * mean_per_user)).astype(np.int64)
    items = np.concatenate(
        [
            _buy(world, np.arange(start, min(start + _BLOCK, world.n_users)), counts, rng)
            for start in range(0, world.n_users, _BLOCK)
        ]
    )
    users = np.repeat(np.arange(world.n_users), counts)
    times = _OPENING + rng.integers(2 * _YEAR, size=len(users))
    order = np.lexsort((times, users))
    return users[order], items[order], times[order]


def _buy(world: World, users: Ints, counts: Ints, rng: np.random.Generator) -> Ints:
    """Rows of the items bought by a block of users, user by user."""
    perturbed = world.utilities(users) + rng.gumbel(size=(len(users), world.n_items))
    most = int(counts[users].max())
    best = np.argpartition(-perturbed, most - 1, axis=1)[:, :most]
    rank = np.argsort(-np.take_along_axis(perturbed, best, axis=1), axis=1)
    bought = np.take_along_axis(best, rank, axis=1)
    kept: Ints = bought[np.arange(most) < counts[users, None]]
    return kept
