"""Profiles in numbers alone: the mean of a user's history, and random numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from modalign.data.modality import Modality
from modalign.errors import ConfigError, DataError, UnknownName
from modalign.features.history import history_mean
from modalign.profiles.side import TrainingSide
from modalign.seeds import numpy_generator


class HistoryMean:
    """The direction of a user's items' centred features (`modalign.features.history`).

    Args:
        modality: of the items; None takes `text`, or the only one there is.
    """

    def __init__(self, modality: str | None = None) -> None:
        self.modality = modality

    def provenance(self, side: TrainingSide) -> dict[str, Any]:
        """Provider and the features it averages."""
        chosen = self._chosen(side)
        facts = {"modality": chosen.name, "features": chosen.fingerprint}
        return {"provider": "history-mean", "version": 1, **facts}

    def vectors(self, side: TrainingSide) -> tuple[np.ndarray, np.ndarray]:
        """Rows of length one, zeros for users without items that have features."""
        users, items = side.pairs
        made = history_mean(self._chosen(side), users, items, side.n_users)
        return made.features, made.present

    def _chosen(self, side: TrainingSide) -> Modality:
        known = side.modalities
        if not known:
            raise DataError(
                "an encoded modality of the items for the provider history-mean",
                "data without one",
                "encode one first: `modalign encode DATA`",
            )
        name = self.modality or ("text" if "text" in known or len(known) > 1 else next(iter(known)))
        if name not in known:
            raise UnknownName("modality of the items", name, known)
        return known[name]


class Random:
    """Independent normal numbers, scaled to length one: says nothing, for comparison.

    Args:
        dim: how many for each user.
        seed: of the numbers.

    Raises:
        ConfigError: `dim` is not positive.
    """

    def __init__(self, dim: int = 64, seed: int = 0) -> None:
        if dim < 1:
            raise ConfigError("dim of 1 or more", str(dim), "give a positive number")
        self.dim, self.seed = dim, seed

    def provenance(self, side: TrainingSide) -> dict[str, Any]:
        """Provider, width and seed."""
        return {"provider": "random", "version": 1, "dim": self.dim, "seed": self.seed}

    def vectors(self, side: TrainingSide) -> tuple[np.ndarray, np.ndarray]:
        """Rows of length one for users with training items, zeros for others."""
        rng = numpy_generator(self.seed, "profiles", "random")
        rows = rng.standard_normal((side.n_users, self.dim))
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        present = np.zeros(side.n_users, bool)
        present[side.active] = True
        rows[~present] = 0.0
        return rows.astype(np.float32), present
