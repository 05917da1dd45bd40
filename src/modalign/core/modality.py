"""One modality: a feature matrix, and for each row whether it exists."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np

from modalign.errors import DataError

Kind = Literal["text", "image", "audio", "video", "vectors"]
"""What features were made from; of `vectors` that is not known."""


@dataclass(frozen=True)
class Modality:
    """Features of one kind (text, image, audio, ...) for all items or all users.

    `present` records missing rows; their features are zeros that no model may read as values.
    `modalign.features.fill` applies the policy for missing rows.

    Attributes:
        name: name of the modality ("text", "image").
        features: float32, shape (n, d), rows in vocabulary order; missing rows are zero.
        present: bool, shape (n,).
        entity: "item" or "user": what a row stands for.
        provenance: encoder, its revision, hash of its input, options; `kind` and `bag`.

    Raises:
        DataError: the shapes do not match, or a present row has a NaN or an infinite value.
    """

    name: str
    features: np.ndarray
    present: np.ndarray
    entity: Literal["item", "user"] = "item"
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        features, present = self.features, self.present
        if features.ndim != 2 or present.shape != (len(features),):
            expected = f"modality {self.name!r} as (n, d) features with n presence flags"
            got = f"features {features.shape} and presence {present.shape}"
            raise DataError(expected, got, "give one row of numbers and one flag per item")
        # A sum is finite only if all its terms are (up to overflow): a cheap check comes first.
        if not np.isfinite(features.sum(dtype=np.float64)):
            bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
            if len(bad):
                got = f"NaN or infinite values in {len(bad)} rows, the first is row {bad[0]}"
                fix = "correct those rows, or mark them as not present"
                raise DataError(f"finite numbers in modality {self.name!r}", got, fix)

    def __repr__(self) -> str:
        n = int(self.present.sum())
        whose = f"{n:,} of {len(self.present):,} {self.entity}s"
        return f"Modality({self.name}: {self.dim:,} numbers for {whose})"

    @property
    def dim(self) -> int:
        """Width of a row."""
        return int(self.features.shape[1])

    @property
    def kind(self) -> Kind:
        """What the features were made from, as the encoder has declared it.

        Example:
            >>> Modality("taste", np.ones((1, 2), np.float32), np.ones(1, bool)).kind
            'vectors'
        """
        kinds: tuple[Kind, ...] = get_args(Kind)
        return next((kind for kind in kinds if kind == self.provenance.get("kind")), "vectors")

    @property
    def bag(self) -> bool:
        """Whether the columns are words and the numbers their weights, as the encoder declares it.

        Never guessed from the numbers: picture features without negative numbers are vectors.

        Example:
            >>> counts, every = np.eye(2, 9, dtype=np.float32), np.ones(2, bool)
            >>> Modality("text", counts, every).bag
            False
            >>> Modality("text", counts, every, provenance={"bag": True}).bag
            True
        """
        declared = self.provenance.get("bag")
        if isinstance(declared, bool):
            return declared
        # Files written before encoders declared it: `words` alone made bags.
        return self.provenance.get("encoder") == "words"

    def __len__(self) -> int:
        return len(self.features)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of features and presence, 16 hexadecimal digits."""
        digest = hashlib.sha256(str(self.features.shape).encode())
        digest.update(np.ascontiguousarray(self.features).view(np.uint8).data)
        digest.update(np.ascontiguousarray(self.present).view(np.uint8).data)
        return digest.hexdigest()[:16]
