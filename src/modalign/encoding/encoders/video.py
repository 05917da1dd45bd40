"""Encoder of videos: evenly spaced frames through a picture encoder, and the sound track."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from modalign.core.interfaces import Config
from modalign.core.settings import build
from modalign.encoding.encoders.decoding import frames, has_sound
from modalign.encoding.encoders.encoder import (
    Encoder,
    InputKind,
    UnreadableInput,
    make_encoder,
    versions,
)


class FramesOptions(Config):
    """Options of `frames`."""

    count: Annotated[int, Field(ge=1, le=64)] = 8
    """Number of frames, at the middles of that many equal parts of the video."""
    picture: str = "efficientnet-lite0"
    """The encoder of the frames."""
    sound: str = "spectra"
    """The encoder of the sound track; none leaves it out."""


class FramesEncoder:
    """A video as the mean of its frames' vectors, followed by the vector of its sound.

    Both parts are scaled to norm 1, so that neither outweighs the other; the part of the sound is
    zero where a video has no sound track, or a silent one.

    Limits: it sees what is shown, not how it moves.

    Args:
        name: as on the command line.
        device: where the encoders of frames and sound run.
        options: see `FramesOptions`.

    Raises:
        ConfigError: an extra is missing, or an option is unknown or out of bounds.
        UnknownName: there is no such encoder of pictures or sounds.
    """

    kind: InputKind = "video"
    batch_size = 16

    def __init__(self, name: str = "frames", device: str = "cpu", **options: Any) -> None:
        self.name, self.device = name, device
        self.options = build(FramesOptions, options, f"encoder {name}")
        self._picture = make_encoder(self.options.picture, "image", device)
        self._sound: Encoder | None = None
        if self.options.sound != "none":
            self._sound = make_encoder(self.options.sound, "audio", device)

    @property
    def dim(self) -> int:
        """Width of a row."""
        return self._picture.dim + (0 if self._sound is None else self._sound.dim)

    def provenance(self) -> dict[str, Any]:
        """Encoder, options, what it uses, versions."""
        return {
            "encoder": self.name,
            "options": self.options.model_dump(),
            "pictures": self._picture.provenance(),
            "sounds": None if self._sound is None else self._sound.provenance(),
            "versions": versions("av"),
        }

    def read(self, raw: Any) -> np.ndarray:
        """The row of a video from its path, float32, (dim,); a row stays as it is.

        Raises:
            UnreadableInput: there is no file, no moving picture in it, or it is broken.
        """
        if isinstance(raw, np.ndarray):
            return raw
        shown = self._picture.encode(frames(raw, self.options.count))
        parts = [_unit(shown.mean(axis=0))]
        if self._sound is not None:
            parts.append(self._heard(self._sound, raw))
        return np.concatenate(parts).astype(np.float32)

    @staticmethod
    def _heard(encoder: Encoder, raw: Any) -> np.ndarray:
        if not has_sound(raw):
            return np.zeros(encoder.dim, np.float32)
        try:
            return _unit(encoder.encode([encoder.read(raw)])[0])
        except UnreadableInput:  # a silent or empty track says as much as none
            return np.zeros(encoder.dim, np.float32)

    def encode(self, batch: Sequence[Any]) -> np.ndarray:
        """Rows of videos (paths or read ones), float32, shape (len(batch), dim)."""
        return np.stack([self.read(raw) for raw in batch])


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(float(np.linalg.norm(vector)), 1e-12)
