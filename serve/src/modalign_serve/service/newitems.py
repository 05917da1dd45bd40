"""Items that come while the service runs: kept durably, and put into every ranker anew."""

from __future__ import annotations

import msgspec
import numpy as np

from modalign_serve.errors import Failure, InputError
from modalign_serve.service.logs import Log
from modalign_serve.service.models import Served
from modalign_serve.service.schemas import Added, NewItem
from modalign_serve.stores.feedback import Feedback


class _Kept(msgspec.Struct, kw_only=True):
    """What the store keeps of a new item."""

    model: str
    version: str
    vector: list[float] | None = None
    features: dict[str, list[float]] | None = None
    fields: dict[str, str | float | None] = {}


class NewItems:
    """New items of all models.

    An item given by features is adapted to whatever artifact is served; one given by a vector
    belongs to the artifact it was given for, and is left out after a swap to another.

    Args:
        feedback: keeps them.
        log: told of items that are left out.
    """

    def __init__(self, feedback: Feedback, log: Log) -> None:
        self._feedback, self._log = feedback, log
        self._kept: dict[str, _Kept] = {}
        for item_id, body in feedback.store.items():
            self._kept[item_id] = msgspec.json.decode(body, type=_Kept)

    async def add(
        self, served: Served, item: NewItem, features: dict[str, list[float]] | None
    ) -> Added:
        """Put an item into a model's ranking, once it is on disk.

        Args:
            served: the model.
            item: what was sent.
            features: by modality; those sent, or those an encoder made.

        Raises:
            InputError: the artifact has the item, or cannot make a vector of this.
            Failure: 409, a vector of another model's width.
        """
        given = None if isinstance(item.vector, msgspec.UnsetType) else item.vector
        width = served.ranker.artifact.manifest.width
        if given is not None and width and len(given) != width:
            raise Failure(
                409, f"a vector of {width} numbers, as those of {served.name}",
                f"one of {len(given)}", "send its features, which fit every model",
            )  # fmt: skip
        kept = _Kept(
            model=served.name,
            version=served.version,
            vector=given,
            features=features,
            fields=dict(item.fields),
        )
        self._put(served, item.item_id, kept)
        await self._feedback.put_item(item.item_id, msgspec.json.encode(kept))
        self._kept[item.item_id] = kept
        made_of = ["vector"] if given is not None else sorted(features or {})
        return Added(served.name, item.item_id, len(served.ranker.catalogue), made_of)

    def restore(self, served: Served) -> None:
        """Put the items kept for a model into a ranker that was just opened."""
        for item_id, kept in self._kept.items():
            if kept.model != served.name:
                continue
            if served.ranker.artifact.item_ids.row(item_id) >= 0:
                continue  # the new artifact has been trained on it
            if kept.vector is not None and kept.version != served.version:
                self._log.warning(
                    "new item left out", item_id=item_id, model=served.name,
                    reason="its vector is of another artifact; send it again",
                )  # fmt: skip
                continue
            try:
                self._put(served, item_id, kept)
            except InputError as error:
                self._log.warning(
                    "new item left out", item_id=item_id, model=served.name, reason=str(error)
                )

    def count(self, served: Served) -> int:
        """How many new items a model ranks."""
        return len(served.ranker.catalogue) - served.ranker.artifact.n_items

    def _put(self, served: Served, item_id: str, kept: _Kept) -> None:
        vector = None if kept.vector is None else np.array(kept.vector, np.float32)
        features = {name: _scaled(values) for name, values in (kept.features or {}).items()}
        served.ranker.add_item(item_id, vector, kept.fields, features or None)


def _scaled(values: list[float]) -> np.ndarray:
    """A row of features with 1 as its largest number: models read its direction alone, and in
    single precision the square of a very small number is nothing.
    """
    row = np.array(values)
    found: np.ndarray = (row / np.abs(row).max()).astype(np.float32)
    return found
