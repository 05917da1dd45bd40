"""Items that arrive while the service runs: stored durably, and added to every ranker again."""

from __future__ import annotations

import msgspec
import numpy as np

from modalign_serve.errors import Failure, InputError
from modalign_serve.service.logs import JsonLog
from modalign_serve.service.schemas import Added, NewItem
from modalign_serve.service.served import Served
from modalign_serve.stores.feedback import Feedback


class _Stored(msgspec.Struct, kw_only=True):
    """What the store holds of a new item."""

    model: str
    version: str
    vector: list[float] | None = None
    features: dict[str, list[float]] | None = None
    fields: dict[str, str | float | None] = {}


class NewItems:
    """New items of all models.

    An item given by features is adapted to each artifact that is served; one given by a vector
    belongs to the artifact it was sent for, and is left out after a swap to another.

    Args:
        feedback: stores them.
        log: reports items that are left out.
    """

    def __init__(self, feedback: Feedback, log: JsonLog) -> None:
        self._feedback, self._log = feedback, log
        self._stored: dict[str, _Stored] = {}
        for item_id, body in feedback.store.items():
            self._stored[item_id] = msgspec.json.decode(body, type=_Stored)

    async def add(
        self, served: Served, item: NewItem, features: dict[str, list[float]] | None
    ) -> Added:
        """Add an item to a model's ranking, and store it.

        Args:
            served: the model.
            item: the item as it was sent.
            features: by modality; as sent, or from an encoder.

        Raises:
            InputError: the artifact has the item, or cannot make a vector from these features.
            Failure: 409 for a vector of another width than the model's, 503 if the store fails.
        """
        given = None if isinstance(item.vector, msgspec.UnsetType) else item.vector
        width = served.ranker.manifest.width
        if given is not None and width and len(given) != width:
            raise Failure(
                409, f"a vector of {width} numbers, as those of {served.name}",
                f"one of {len(given)}", "send its features, which fit every model",
            )  # fmt: skip
        stored = _Stored(
            model=served.name,
            version=served.version,
            vector=given,
            features=features,
            fields=dict(item.fields),
        )
        # Checked, then stored, then served: what is refused or not on disk is in no list.
        self._put(served, item.item_id, stored, only_check=True)
        await self._feedback.put_item(item.item_id, msgspec.json.encode(stored))
        self._stored[item.item_id] = stored
        self._put(served, item.item_id, stored)
        made_of = ["vector"] if given is not None else sorted(features or {})
        return Added(served.name, item.item_id, len(served.ranker.catalogue), made_of)

    def restore(self, served: Served) -> None:
        """Add the stored items of a model to a ranker that was just opened."""
        for item_id, stored in self._stored.items():
            if stored.model != served.name or served.ranker.catalogue.is_trained(item_id):
                continue
            if stored.vector is not None and stored.version != served.version:
                self._left_out(served, item_id, "its vector is of another artifact; send it again")
                continue
            try:
                self._put(served, item_id, stored)
            except InputError as error:
                self._left_out(served, item_id, str(error))

    def _left_out(self, served: Served, item_id: str, reason: str) -> None:
        self._log.warning("new item left out", item_id=item_id, model=served.name, reason=reason)

    def _put(self, served: Served, item_id: str, stored: _Stored, only_check: bool = False) -> None:
        vector = None if stored.vector is None else np.array(stored.vector, np.float32)
        features = {name: _scaled(values) for name, values in (stored.features or {}).items()}
        served.ranker.add_item(
            item_id, vector, stored.fields, features or None, only_check=only_check
        )


def _scaled(values: list[float]) -> np.ndarray:
    """Features scaled to a largest number of 1: models read only their direction, and in single
    precision the square of a very small number is zero.
    """
    row = np.array(values)
    found: np.ndarray = (row / np.abs(row).max()).astype(np.float32)
    return found
