"""`modalign.load`: prepared folders and data frames through one function."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modalign.data.dataset import Dataset


def load(source: str | Path | Any, **options: Any) -> Dataset:
    """A data set from a prepared folder, or from a polars or pandas data frame.

    Args:
        source: folder written by `modalign data import`, or a frame of interactions.
        options: for a frame only: names of columns (`user`, `item`, `weight`, `time`), `items` (a
            table of items), and the fields of `modalign.data.prepare.PrepareOptions`
            (`min_rating`, `k_core`, `split`, `seed`, ...).

    Raises:
        DataError: not a prepared folder, or a frame without the columns.
        TypeError: options are given for a folder.

    Example:
        >>> import polars as pl
        >>> frame = pl.DataFrame({"user_id": ["a"] * 6 + ["b"] * 6, "item_id": [*"uvwxyz"] * 2})
        >>> data = load(frame, seed=1)
        >>> data.n_users, data.n_items, len(data.train) + len(data.valid) + len(data.test)
        (2, 6, 12)
    """
    if isinstance(source, str | Path):
        if options:
            raise TypeError(f"a prepared folder takes no options; got {', '.join(options)}")
        return Dataset.load(source)
    from modalign.data.frames import from_frame

    return from_frame(source, **options)
