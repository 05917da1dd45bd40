"""The content adapter: from the features of an item without interactions to the item space.

    v = x W + tanh(x A + a) B + b

where x concatenates the features of all modalities, each scaled to unit length and centred by the
mean of training, and a flag for each modality. A modality that an item does not have is zeros,
with a flag of zero. A ridge regression has no hidden layer (A and B have width 0).
`modalign.export.content` trains and chooses the adapter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from modalign_serve.errors import DataError, UnknownName


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1, float32; rows of zeros stay zeros.

    Example:
        >>> unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
        [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    found = np.asarray(rows, np.float32)
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    unit: np.ndarray = found / np.where(lengths > 0, lengths, 1.0)
    return unit


def inputs(
    features: Mapping[str, np.ndarray],
    present: Mapping[str, np.ndarray],
    names: Sequence[str],
    centres: Mapping[str, np.ndarray],
) -> np.ndarray:
    """The adapter's input x, (n, sum of widths + number of modalities), float32.

    Args:
        features: (n, width) by modality.
        present: which items have the modality, bool (n,) by modality.
        names: the modalities, in their order in x.
        centres: mean of the unit rows in training, by modality.
    """
    parts = []
    for name in names:
        there = present[name][:, None].astype(np.float32)
        parts += [(unit_rows(features[name]) - centres[name]) * there, there]
    return np.concatenate(parts, axis=1)


class ContentAdapter:
    """Maps modality features into the item space.

    Args:
        matrices: "linear" W, "bias" b, "hidden" A, "hidden_bias" a, "out" B, and
            "centre.NAME" for each modality.
        names: the modalities in their order in x.
    """

    def __init__(self, matrices: Mapping[str, np.ndarray], names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._matrices = matrices
        self._centres = {name: matrices[f"centre.{name}"] for name in names}

    @property
    def widths(self) -> dict[str, int]:
        """Width of the features of each modality."""
        return {name: len(centre) for name, centre in self._centres.items()}

    def __call__(self, features: Mapping[str, np.ndarray]) -> np.ndarray:
        """Vectors (n, width) of items.

        Args:
            features: (n, width of the modality) by name. A row of zeros, or a modality that is
                left out, is one that the item does not have.

        Raises:
            UnknownName: a modality the adapter was not trained on.
            DataError: no features, rows of another width, not finite, or of different numbers.
        """
        given = self._checked(features)
        n = len(next(iter(given.values())))
        for name, width in self.widths.items():
            given.setdefault(name, np.zeros((n, width), np.float32))
        present = {name: np.asarray(rows.any(axis=1)) for name, rows in given.items()}
        if not np.any(list(present.values()), axis=0).all():
            got = "an item whose features are all zeros"
            fix = f"give {' or '.join(self.names)}"
            raise DataError("at least one modality of every new item", got, fix)
        return self.apply(inputs(given, present, self.names, self._centres))

    def apply(self, x: np.ndarray) -> np.ndarray:
        """Vectors of prepared inputs x; see `inputs`."""
        m = self._matrices
        found: np.ndarray = x @ m["linear"] + m["bias"]
        if m["out"].size:
            found = found + np.tanh(x @ m["hidden"] + m["hidden_bias"]) @ m["out"]
        return found

    def _checked(self, features: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        found = {}
        for name, rows in features.items():
            if name not in self._centres:
                raise UnknownName("modality of this adapter", name, self.names)
            array = np.asarray(rows, np.float32)
            width = self.widths[name]
            if array.ndim != 2 or array.shape[1] != width or not np.isfinite(array).all():
                got = f"shape {array.shape}, or a number that is not finite"
                fix = "encode the item with the encoder named in the manifest"
                raise DataError(f"finite {name} features of shape (n, {width})", got, fix)
            found[name] = array
        if len({len(rows) for rows in found.values()}) != 1:
            got = ", ".join(f"{name}: {len(rows)}" for name, rows in found.items()) or "none"
            fix = f"give {' or '.join(self.names)}"
            raise DataError("features of at least one modality, one row per item in each", got, fix)
        return found
