"""Everything one service holds while it runs: models, feedback, keys, limits, metrics."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import numpy as np

from modalign_serve.errors import Failure, InputError, UnknownName, unavailable
from modalign_serve.service import served as serving
from modalign_serve.service.batching import Batcher
from modalign_serve.service.counters import Metrics
from modalign_serve.service.encoder_process import EncoderProcess
from modalign_serve.service.keys import Keys
from modalign_serve.service.limits import RateLimit, WorkLimit
from modalign_serve.service.logs import JsonLog
from modalign_serve.service.new_items import NewItems
from modalign_serve.service.schemas import Added, Event, NewItem, Received, Swapped
from modalign_serve.service.served import Served
from modalign_serve.service.service_settings import ServiceSettings
from modalign_serve.stores.feedback import Feedback
from modalign_serve.stores.stores import StoredEvent, StoreFailed, open_store, redacted

FLUSH_SECONDS = 0.25


class Service:
    """Opened from its settings before the server listens, so mistakes are reported at once.

    Args:
        settings: of the service.
        log: where it writes; None makes one from the settings.

    Raises:
        InputError: an artifact, the store or the file of keys cannot be used.
    """

    def __init__(self, settings: ServiceSettings, log: JsonLog | None = None) -> None:
        self.settings = settings
        self.log = log or JsonLog(settings.log)
        self.metrics = Metrics()
        self.keys = None if settings.keys is None else Keys.load(settings.keys)
        self.limit = RateLimit(settings.rate) if settings.rate else None
        self.work = WorkLimit()
        opened = [Served.open(name, folder) for name, folder in settings.artifacts.items()]
        self.models = serving.ServedModels(opened, settings.split)
        self.feedback = Feedback(
            open_store(settings.feedback), self.metrics.commit_seconds.observe, self._store_failed
        )
        self.new_items = NewItems(self.feedback, self.log)
        self.encoder = None if settings.encoder is None else EncoderProcess(settings.encoder)
        self.batcher = Batcher(self._measured)
        self.threads = ThreadPoolExecutor(2, "rank")
        self.stopping = False
        self._swapping: set[str] = set()
        self._meanwhile: list[tuple[str, str, str]] = []
        self._flusher: asyncio.Task[None] | None = None
        history = list(self.feedback.store.histories())
        for served in self.models:
            self.new_items.restore(served)
            served.add_events(history)
            self.metrics.model_info.labels(served.name, served.version).set(1)

    async def start(self) -> None:
        """Start what runs beside the requests; the server calls it in its event loop."""
        self.feedback.start()
        self._flusher = asyncio.create_task(self._flush())
        shown = {one.name: one.version for one in self.models}
        self.log.info("started", models=shown, feedback=redacted(self.settings.feedback))

    async def stop(self) -> None:
        """Write what waits and close everything."""
        await self.feedback.close()
        self.threads.shutdown(wait=False, cancel_futures=True)
        if self.encoder is not None:
            await self.encoder.stop()
        if self._flusher is not None:
            self._flusher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._flusher
        self.log.info("stopped")
        await asyncio.to_thread(self.log.flush)

    async def _flush(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            self.log.hand_over()

    def reload_keys(self) -> None:
        """Read the file of keys again; if it is damaged, the old keys stay."""
        if self.settings.keys is None:
            return
        try:
            self.keys = Keys.load(self.settings.keys)
            self.log.info("keys read again", keys=len(self.keys.keys))
        except InputError as error:
            self.log.error("keys not read again", reason=str(error))

    def _store_failed(self, error: StoreFailed) -> None:
        self.log.error("feedback not stored", reason=str(error))

    def _measured(self, name: str, size: int, seconds: float) -> None:
        self.metrics.rank_seconds.labels(name).observe(seconds)
        self.metrics.batch.labels(name).observe(size)
        self.metrics.lists.labels(name, "user").inc(size)

    async def record(self, events: Sequence[Event]) -> Received:
        """Store events durably, then pass them to every model.

        Raises:
            Failure: 409 if another event has the id of one of them, 503 if the store fails; no
                event is stored then.
        """
        now = int(time.time())
        rows = [
            StoredEvent(
                one.event_id,
                str(one.user_id),
                str(one.item_id),
                one.kind,
                now if isinstance(one.time, msgspec.UnsetType) else one.time,
                now,
            )
            for one in events
        ]
        try:
            new = await self.feedback.record(rows)
        except Failure as failure:
            result = "conflict" if failure.status == 409 else "failed"
            self.metrics.events.labels(result).inc(len(rows))
            raise
        self.metrics.events.labels("new").inc(new)
        self.metrics.events.labels("duplicate").inc(len(rows) - new)
        seen = [(row.user_id, row.item_id, row.kind) for row in rows]
        for served in self.models:
            served.add_events(seen)
        if self._swapping:
            self._meanwhile += seen
        if new == len(rows):
            for row in rows:
                name = self.models.of_user(row.user_id).name
                self.metrics.model_events.labels(name, row.kind).inc()
        items = [row.item_id for row in rows]
        unknown = np.ones(len(items), bool)
        for served in self.models:
            unknown &= served.ranker.catalogue.find(items) < 0
        return Received(len(rows), new, len(rows) - new, int(unknown.sum()))

    async def add_item(self, served: Served, item: NewItem) -> Added:
        """Add a new item to a model's ranking.

        Raises:
            Failure: 409 if the model has the item, or cannot rank new ones; 422 if nothing was
                sent to make a vector from; 503 if the store fails.
            InputError: the artifact cannot take it.
        """
        if served.ranker.catalogue.is_trained(item.item_id):
            raise Failure(
                409, "an id that the model does not have", f"{item.item_id!r}, which it was "
                "trained on", "choose another id, or train and swap to change an item",
            )  # fmt: skip
        if not served.ranker.takes_new_items:
            raise Failure(
                409, "a model whose scores are products of vectors, to rank new items",
                served.ranker.manifest.model, "serve a model with vectors, such as a distilled one",
            )  # fmt: skip
        features = None if isinstance(item.features, msgspec.UnsetType) else item.features
        given = None if isinstance(item.vector, msgspec.UnsetType) else item.vector
        raw = {
            kind: value
            for kind, value in (("text", item.text), ("image", item.image))
            if not isinstance(value, msgspec.UnsetType)
        }
        if raw and self.encoder is not None:
            # Features that were sent are used as they are; only the others are made.
            features = {**await self.encoder.features(served, raw), **(features or {})}
        if given is None and features is None:
            raise Failure(
                422, "the item's vector, or its features by modality", "neither",
                "encode its text and picture as the model's card says and send the features, or "
                "start the service with --encoder",
            )  # fmt: skip
        _check_features(served, features or {})
        added = await self.new_items.add(served, item, features)
        now = self.models.get(served.name)
        if now is not served:  # swapped while the disk was busy
            self.new_items.restore(now)
        return added

    async def swap(self, name: str, artifact: str | None) -> Swapped:
        """Serve a model from another artifact; requests in flight end with the old one.

        The artifact is read, checked and tried in another thread while the old one answers.

        Args:
            name: of the model.
            artifact: name of a folder beside the present one; None reads the present one again.

        Raises:
            Failure: 404, 409 or 422; the old artifact is still served then.
            InputError: the artifact cannot be served; the old one still is.
        """
        old = self.models.get(name)
        folder = old.folder if artifact is None else serving.beside(old.folder, artifact)
        if name in self._swapping:
            raise Failure(
                409, f"one swap of {name} at a time", "a second one", "wait for the first to end"
            )
        started = time.perf_counter()
        self._swapping.add(name)
        try:
            served = await asyncio.to_thread(self._opened, name, folder)
            # Events that arrived while it was read; to add an event twice changes nothing.
            served.add_events(self._meanwhile)
            self.new_items.restore(served)
            self.models.replace(served)
        except InputError as error:
            self.metrics.swaps.labels(name, "refused").inc()
            self.log.error("swap refused", model=name, artifact=folder.name, reason=str(error))
            raise
        except OSError as error:
            self.metrics.swaps.labels(name, "refused").inc()
            raise Failure(
                409, "an artifact that can be read", f"{folder.name}: {error.strerror or error}",
                "wait until it is complete, then ask again",
            ) from error  # fmt: skip
        except StoreFailed as error:
            self.metrics.swaps.labels(name, "refused").inc()
            self._store_failed(error)
            raise unavailable("a store of feedback that failed", "ask again") from error
        finally:
            self._swapping.discard(name)
            if not self._swapping:
                self._meanwhile = []
        seconds = round(time.perf_counter() - started, 3)
        self.metrics.swaps.labels(name, "done").inc()
        self.metrics.model_info.remove(name, old.version)
        self.metrics.model_info.labels(name, served.version).set(1)
        self.log.info("swapped", model=name, version=served.version, previous=old.version)
        return Swapped(name, served.version, old.version, seconds)

    def _opened(self, name: str, folder: Any) -> Served:
        served = Served.open(name, folder)
        served.add_events(self.feedback.store.histories())
        return served


def _check_features(served: Served, features: Mapping[str, Sequence[float]]) -> None:
    """Refuse modalities that the content adapter does not know, and rows of zeros."""
    adapter = served.ranker.adapter
    if features and adapter is None:
        raise Failure(
            409, "a model with a content adapter, to take features", served.name,
            "export a run whose data have features, or send the item's vector",
        )  # fmt: skip
    for name, values in features.items():
        assert adapter is not None
        width = adapter.widths.get(name)
        if width is None:
            error = UnknownName("modality", name, adapter.widths)
            raise Failure(422, error.expected, error.got, error.fix)
        if len(values) != width or not any(values):
            got = f"{len(values)} numbers" if any(values) else "only zeros"
            raise Failure(
                422, f"{width} numbers in features.{name}, not all of them zero", got,
                "send what the encoder named in the model's card makes, or leave the modality out",
            )  # fmt: skip
