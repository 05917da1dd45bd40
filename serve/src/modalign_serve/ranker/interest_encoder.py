"""Interests of a user, for models whose scores are a mixture of interests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from modalign_serve.artifact.artifact import Artifact
from modalign_serve.ranker.foldin import session


class InterestEncoder:
    """What each interest of a user adds to the scores of all items.

    A model such as BANDVAE scores an item by `log sum_k c_ik` over K interests inferred from a
    user's history. Its encoder returns the cells `c_ik` beside the scores.
    """

    def __init__(self, path: Path) -> None:
        self._runner: Any = session(path)
        outputs = self._runner.get_outputs()
        self._output = outputs[1].name if len(outputs) > 1 else ""

    @property
    def known(self) -> bool:
        """Whether the encoder returns cells."""
        return bool(self._output)

    def cells(self, history: np.ndarray) -> np.ndarray:
        """Cells c of all items, (n_items, K), not negative."""
        found: np.ndarray = self._runner.run([self._output], {"items": history.astype(np.int64)})[0]
        return found


def interests_of(artifact: Artifact) -> InterestEncoder | None:
    """The interests of an artifact's users; None if its model has none."""
    path = artifact.file("encoder.onnx")
    if artifact.manifest.kind != "encoder" or path is None:
        return None
    made = InterestEncoder(path)
    return made if made.known else None
