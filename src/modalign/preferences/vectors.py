"""Profiles in numbers alone: the mean of a user's history, and random numbers."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from modalign.core.modality import Modality
from modalign.core.seeds import numpy_generator
from modalign.core.settings import build
from modalign.errors import DataError, UnknownName
from modalign.features.history import history_mean
from modalign.preferences.side import TrainingSide


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


class RandomOptions(BaseModel):
    """Options of `Random`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    dim: Annotated[int, Field(ge=1)] = 64
    """Numbers for each user."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Of the numbers."""


class Random:
    """Independent normal numbers, scaled to length one: says nothing, for comparison.

    Args:
        options: see `RandomOptions`.

    Raises:
        ConfigError: an option is unknown or out of its bounds.
    """

    def __init__(self, **options: Any) -> None:
        self.options = build(RandomOptions, options, "provider random")

    def provenance(self, side: TrainingSide) -> dict[str, Any]:
        """Provider, width and seed."""
        return {"provider": "random", "version": 1, **self.options.model_dump()}

    def vectors(self, side: TrainingSide) -> tuple[np.ndarray, np.ndarray]:
        """Rows of length one for users with training items, zeros for others."""
        rng = numpy_generator(self.options.seed, "profiles", "random")
        rows = rng.standard_normal((side.n_users, self.options.dim))
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        present = np.zeros(side.n_users, bool)
        present[side.active] = True
        rows[~present] = 0.0
        return rows.astype(np.float32), present
