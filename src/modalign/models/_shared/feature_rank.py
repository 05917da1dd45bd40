"""The option `feature_rank`: wide features with fewer columns and (nearly) the same function."""

from __future__ import annotations

from typing import Literal

from modalign.core.modality import Modality
from modalign.features.reduce import reduced

FeatureRank = int | Literal["auto", "exact"] | None


def fewer_columns(modality: Modality, rank: FeatureRank) -> Modality:
    """The modality with the columns that `rank` asks for.

    "exact" rotates the features to their rank, which loses nothing; "auto" does so where there
    are more columns than items; a number truncates; None leaves the features as they are.
    """
    if rank is None or (rank == "auto" and modality.dim <= len(modality)):
        return modality
    return reduced(modality, rank if isinstance(rank, int) else None)
