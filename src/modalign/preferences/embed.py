"""Texts about users to vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from modalign.encoding.encode import ChunkedEncoding
from modalign.encoding.encoders.encoder import FittedEncoder, facts_hash, make_encoder
from modalign.errors import DataError


@runtime_checkable
class TextEmbedder(Protocol):
    """Texts in, rows out."""

    @property
    def fingerprint(self) -> str:
        """Hash of all that a vector depends on besides its text and the texts of `fit`."""
        ...

    def fit(self, texts: Sequence[str]) -> None:
        """Learn from the texts of the items, if the embedder learns."""
        ...

    def encode(self, texts: Sequence[str | None]) -> tuple[np.ndarray, np.ndarray]:
        """Float32 (n, d) and presence (n,); a missing or unreadable text is not present."""
        ...


class EncoderEmbedder:
    """Any text encoder of `modalign.encoding.encoders` as an embedder.

    Args:
        name: `tfidf` (a truncated SVD fitted on the items' texts, at most 256 numbers), `minilm`,
            `st:NAME`, `hf:NAME`, ...
        device: where it runs.
        options: of the encoder.

    Raises:
        UnknownName: there is no such encoder.
        ConfigError: it does not read texts, or an option is unknown or out of its bounds.
    """

    def __init__(self, name: str = "tfidf", device: str = "cpu", **options: Any) -> None:
        self._encoder = make_encoder(name, "text", device, **options)
        self.name = name

    @property
    def fingerprint(self) -> str:
        """Hash of the encoder's provenance, 16 hexadecimal digits."""
        return facts_hash(self._encoder.provenance())

    def fit(self, texts: Sequence[str]) -> None:
        """Learn words and directions, if the encoder learns."""
        if isinstance(self._encoder, FittedEncoder):
            self._encoder.fit(texts)

    def encode(self, texts: Sequence[str | None]) -> tuple[np.ndarray, np.ndarray]:
        """Float32 (n, d) and presence (n,)."""
        features, present, _, _ = ChunkedEncoding(self._encoder, texts).run()
        return features, present


def centred(features: np.ndarray, present: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows minus the mean of the present rows, scaled to length one.

    Sentences about people agree in most directions; without removing what they share, all
    users would look similar.

    Args:
        features: (n, d).
        present: bool (n,).

    Returns:
        Float32 (n, d), and presence: a row equal to the mean has no direction and is absent.

    Example:
        >>> rows = np.float32([[3, 1], [1, 1], [9, 9]])
        >>> centred(rows, np.array([True, True, False]))[0].tolist()
        [[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]]
    """
    if not present.any():
        return features, present
    rows = features.astype(np.float64)
    rows -= rows[present].mean(axis=0)
    rows[~present] = 0.0
    lengths = np.linalg.norm(rows, axis=1)
    scale = max(float(np.abs(features[present]).max()), 1e-30)
    kept = lengths > 1e-6 * scale
    out = np.divide(rows, lengths[:, None], out=np.zeros_like(rows), where=kept[:, None])
    return out.astype(np.float32), kept


def need_present(present: np.ndarray, provider: str) -> None:
    """Check that at least one user has a vector.

    Raises:
        DataError: no user has one.
    """
    if not present.any():
        raise DataError(
            f"a text from {provider} about at least one user that the embedder can read",
            f"none for {len(present):,} users, or the same words for all of them",
            "check the texts with `modalign describe DATA --show 5`, or choose another embedder",
        )
