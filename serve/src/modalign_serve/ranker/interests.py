"""Interest factors of a person, where the model scores by a mixture of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from modalign_serve.artifact.artifact import Artifact
from modalign_serve.ranker.foldin import session


class Interests:
    """What each interest of a person adds to the scores of all items.

    A model such as BANDVAE scores an item by `log sum_k c_ik` over K factors that it reads off a
    person's history. Its encoder gives the cells `c_ik` beside the scores.

    Args:
        path: of the ONNX encoder.
    """

    def __init__(self, path: Path) -> None:
        self._runner: Any = session(path)
        outputs = self._runner.get_outputs()
        self._output = outputs[1].name if len(outputs) > 1 else ""

    @property
    def known(self) -> bool:
        """Whether the encoder gives cells."""
        return bool(self._output)

    def cells(self, history: np.ndarray) -> np.ndarray:
        """Cells c of all items, (n_items, K), none of them negative.

        Args:
            history: rows of items, at least one.
        """
        found: np.ndarray = self._runner.run([self._output], {"items": history.astype(np.int64)})[0]
        return found


def interests_of(artifact: Artifact) -> Interests | None:
    """The interests of an artifact's people; None where its model has none."""
    path = artifact.file("encoder.onnx")
    if artifact.manifest.kind != "encoder" or path is None:
        return None
    made = Interests(path)
    return made if made.known else None
