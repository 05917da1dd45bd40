"""The embedded catalogue: a seeded, synthetic shop with drawn pictures and generated texts.

The users' tastes depend on attributes that only pictures show (palette, pattern, shape) and on
attributes that only texts state (material, occasion, qualities, brand). The two are independent,
so both modalities help a multimodal model, and an ablation shows how much each contributes. No
product, brand or person in it is real. See `world` for the exact distribution.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from modalign.core.files import write_folder_aside
from modalign.core.seeds import numpy_generator
from modalign.core.settings import DEFAULT_SEED
from modalign.data.raw import RawData
from modalign.data.synthetic.drawing import draw_item, encode
from modalign.data.synthetic.texts import write_texts
from modalign.data.synthetic.world import CATEGORIES, World, make_world, sample_interactions
from modalign.errors import ConfigError

__all__ = ["NAME", "World", "generate", "make_world", "write"]

NAME: Final = "synthetic-shop"
_README: Final = """Synthetic shop (seed {seed})

Made by modalign's generator. Every product, brand, picture, text, user and purchase in this
folder is invented by a program: use it to measure methods, not to draw conclusions about people.
"""


def generate(
    seed: int = DEFAULT_SEED,
    n_users: int = 1200,
    n_items: int = 1000,
    mean_per_user: float = 11.0,
    pictures: bool = True,
    no_picture: float = 0.03,
    no_description: float = 0.02,
) -> RawData:
    """Generate the shop in memory.

    Args:
        seed: the only source of randomness: same seed, same bytes.
        n_users: number of users, at least 1.
        n_items: number of items, at least 1.
        mean_per_user: average purchases of a user, from 5 to a quarter of the items.
        pictures: whether to draw the pictures (about 10 ms each) into a column `picture`.
        no_picture: share of the items whose picture is missing.
        no_description: share of the items whose description is missing.

    Returns:
        `items` with item_id, title, description, category and, with `pictures`, picture (the bytes
        of a JPEG file or null); `interactions` with user_id, item_id, time; `users`.

    Raises:
        ConfigError: a number is out of its bounds.

    Example:
        >>> raw = generate(seed=1, n_users=8, n_items=40, mean_per_user=6, pictures=False)
        >>> raw.name, raw.info["synthetic"], raw.items.columns
        ('synthetic-shop', True, ['item_id', 'title', 'description', 'category'])
    """
    world = make_world(seed, n_users, n_items)
    rng = numpy_generator(world.seed, "synthetic", "missing")
    pictured = _keep(rng, world.n_items, "no_picture", no_picture)
    described = _keep(rng, world.n_items, "no_description", no_description)
    users, bought, times = sample_interactions(world, mean_per_user)
    texts = write_texts(world)
    item_ids = pl.Series("item_id", [f"p{item:05d}" for item in range(world.n_items)])
    user_ids = pl.Series("user_id", [f"u{user:05d}" for user in range(world.n_users)])
    items = pl.DataFrame(
        {
            "item_id": item_ids,
            "title": [text.title for text in texts],
            "description": [
                text.description if kept else None
                for text, kept in zip(texts, described, strict=True)
            ],
            "category": [CATEGORIES[code] for code in world.codes["category"][:, 0]],
        }
    )
    if pictures:
        drawn = [encode(draw_item(world, i)) if pictured[i] else None for i in range(world.n_items)]
        items = items.with_columns(pl.Series("picture", drawn, dtype=pl.Binary))
    interactions = pl.DataFrame(
        {"user_id": user_ids.gather(users), "item_id": item_ids.gather(bought), "time": times}
    )
    return RawData(
        name=NAME,
        interactions=interactions.lazy(),
        items=items,
        users=user_ids.to_frame(),
        info=_info(world, mean_per_user),
    )


def write(
    folder: str | Path,
    seed: int = DEFAULT_SEED,
    n_users: int = 1200,
    n_items: int = 1000,
    mean_per_user: float = 11.0,
) -> RawData:
    """Generate the shop and write images/, items.csv, interactions.csv, users.csv, README.txt.

    Args:
        folder: where to write; existing entries of these names are replaced, others stay.
        seed: the only source of randomness: same seed, same bytes.
        n_users: number of users, at least 1.
        n_items: number of items, at least 1.
        mean_per_user: average purchases of a user, from 5 to a quarter of the items.

    Returns:
        As `generate`, but with a column `image` (absolute paths, null without a picture) in place
        of `picture`.

    Raises:
        ConfigError: a number is out of its bounds.
    """
    raw = generate(seed, n_users, n_items, mean_per_user)
    assert raw.items is not None
    root = Path(folder).absolute()
    files = [
        None if picture is None else f"images/{item_id}.jpg"
        for item_id, picture in zip(raw.items["item_id"], raw.items["picture"], strict=True)
    ]
    table = raw.items.drop("picture")
    with write_folder_aside(root) as aside:
        (aside / "images").mkdir()
        for file, picture in zip(files, raw.items["picture"], strict=True):
            if file is not None:
                (aside / file).write_bytes(picture)
        table.with_columns(pl.Series("image", files, pl.String)).write_csv(aside / "items.csv")
        raw.interactions.collect().write_csv(aside / "interactions.csv")
        assert raw.users is not None
        raw.users.write_csv(aside / "users.csv")
        (aside / "README.txt").write_text(_README.format(seed=seed), encoding="utf-8")
    paths = [None if file is None else str(root / file) for file in files]
    items = table.with_columns(pl.Series("image", paths, pl.String))
    return RawData(raw.name, raw.interactions, items, raw.users, info=raw.info)


def _keep(rng: np.random.Generator, n: int, name: str, share: float) -> np.ndarray:
    """Which of n things are kept if exactly round(share n) random ones are missing."""
    if not 0 <= share <= 1:
        raise ConfigError(f"{name} from 0 to 1", f"{share:g}", "give a share of the items")
    kept = np.ones(n, dtype=bool)
    kept[rng.permutation(n)[: round(share * n)]] = False
    return kept


def _info(world: World, mean_per_user: float) -> dict[str, Any]:
    return {
        "source": "synthetic",
        "synthetic": True,
        "seed": world.seed,
        "n_users": world.n_users,
        "n_items": world.n_items,
        "mean_per_user": mean_per_user,
        "strength": world.strength,
        "licence": "CC0-1.0: made by a program, nothing in it is real",
        "remarks": "Synthetic data: visual and textual attributes of items are independent.",
    }
