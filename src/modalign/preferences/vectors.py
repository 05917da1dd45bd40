"""Preferences without words: the mean of a user's history, and random numbers."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from pydantic import Field

from modalign.core.interfaces import Config
from modalign.core.modality import Modality
from modalign.core.seeds import numpy_generator
from modalign.core.settings import DEFAULT_SEED, build, from_signature
from modalign.errors import DataError, UnknownName
from modalign.features.history import history_mean
from modalign.preferences.provider import PROVIDERS, ProviderContext
from modalign.preferences.side import TrainingSide


class HistoryMean:
    """The direction of the mean centred features of a user's items (`modalign.features.history`).

    Args:
        modality: of the items; None takes `text`, or the only one.
    """

    def __init__(self, modality: str | None = None) -> None:
        self.modality = modality

    def provenance(self, side: TrainingSide) -> dict[str, Any]:
        """Provider and the features that it averages."""
        chosen = self._chosen(side)
        facts = {"modality": chosen.name, "features": chosen.fingerprint}
        return {"provider": "history-mean", "version": 1, **facts}

    def vectors(self, side: TrainingSide) -> tuple[np.ndarray, np.ndarray]:
        """Rows of length one; zeros for users none of whose items has features.

        Raises:
            DataError: no modality of the items is encoded.
            UnknownName: there is no modality of that name.
        """
        users, items = side.pairs
        made = history_mean(self._chosen(side), users, items, side.n_users)
        return made.features, made.present

    def _chosen(self, side: TrainingSide) -> Modality:
        known = side.modalities
        if not known:
            expected = "an encoded modality of the items for the provider history-mean"
            raise DataError(expected, "none", "encode one first: `modalign encode DATA`")
        name = self.modality or ("text" if "text" in known or len(known) > 1 else next(iter(known)))
        if name not in known:
            raise UnknownName("modality of the items", name, known)
        return known[name]


class RandomOptions(Config):
    """Options of `Random`."""

    dim: Annotated[int, Field(ge=1)] = 64
    """Length of a user's vector."""
    seed: Annotated[int, Field(ge=0)] = DEFAULT_SEED
    """Seed of the numbers."""


class Random:
    """Independent normal numbers, scaled to length one: no information, for comparison.

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
        # Another name of the random stream gives other numbers.
        rng = numpy_generator(self.options.seed, "profiles", "random")
        rows = rng.standard_normal((side.n_users, self.options.dim))
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        rows[~side.is_active] = 0.0
        return rows.astype(np.float32), side.is_active


def _history_mean(context: ProviderContext, **options: Any) -> HistoryMean:
    chosen = build(from_signature(HistoryMean.__init__, 1), options, "provider history-mean")
    return HistoryMean(**chosen.model_dump())


PROVIDERS.register("history-mean", _history_mean)
PROVIDERS.register("random", lambda context, **options: Random(**{"seed": context.seed, **options}))
