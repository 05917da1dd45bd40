"""What a source returns: files as read, with original ids, not filtered or split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl


@dataclass(frozen=True)
class RawFeatures:
    """A feature matrix with the ids of its rows.

    Attributes:
        features: (n, d) numbers.
        present: which rows exist, bool (n,); None means all.
    """

    ids: pl.Series
    features: np.ndarray
    present: np.ndarray | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RawData:
    """The common result of all sources.

    Attributes:
        interactions: columns user_id and item_id (text), and if known weight (float), time (integer
            seconds) and split ("train", "valid", "test").
        items: item_id (text) and if known title, description, image (absolute path), ...
        users: user_id (text) and other columns.
        info: provenance: kind of source, files, licence, remarks to show.
        bad: rows that were left out because they could not be read, with file and reason.
    """

    name: str
    interactions: pl.LazyFrame
    items: pl.DataFrame | None = None
    users: pl.DataFrame | None = None
    features: Mapping[str, RawFeatures] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)
    bad: pl.DataFrame | None = None

    def __repr__(self) -> str:
        # The rows of a lazy frame are not counted here: that would read the files.
        said = [f"interactions with {', '.join(self.interactions.collect_schema().names())}"]
        for name, frame in (("items", self.items), ("users", self.users), ("bad rows", self.bad)):
            if frame is not None:
                said.append(f"{len(frame):,} {name}")
        said += [f"features {name}" for name in sorted(self.features)]
        return f"RawData({self.name}: {', '.join(said)})"
