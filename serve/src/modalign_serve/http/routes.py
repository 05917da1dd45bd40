"""The endpoints: what each takes, asks the models, and gives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from modalign_serve.errors import Failure
from modalign_serve.http import docs, openapi
from modalign_serve.http.http import JSON, Answer, Call, Endpoint, Parameter, Table, answer
from modalign_serve.http.reading import read
from modalign_serve.ranker.ranker import Ranked
from modalign_serve.service import asking, schemas
from modalign_serve.service.metrics import CONTENT_TYPE
from modalign_serve.service.models import Served
from modalign_serve.service.schemas import Recommend
from modalign_serve.service.service import Service
from modalign_serve.stores import export

NAME = Parameter("name", {"type": "string"}, description="A served model.")
ITEM = Parameter("item_id", {"type": "string", "minLength": 1}, description="An item.")
IMAGES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp",
          ".gif": "image/gif"}  # fmt: skip
PARQUET = "application/vnd.apache.parquet"


class Routes:
    """The endpoints of one service.

    Args:
        service: what they ask.
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        self.table = Table(self._endpoints())

    def _endpoints(self) -> list[Endpoint]:
        asked = {"user_id": "42", "k": 10}
        event = {"event_id": "e-1", "user_id": "42", "item_id": "7", "kind": "click"}
        since = Parameter("since", {"type": "integer", "minimum": 0, "maximum": schemas.LATEST},
                          "query", "Only events received since this second.")  # fmt: skip
        lists = (schemas.Answered, schemas.AnsweredMany)
        alike = (schemas.AnsweredSimilar, schemas.AnsweredSimilarMany)
        model = "/v1/models/{name}"
        return [
            Endpoint("POST", model + "/recommend", self.recommend, "Lists of one model",
                     takes=Recommend, gives=lists, parameters=[NAME], statuses=[404, 409],
                     example=asked),
            Endpoint("POST", "/v1/recommend", self.routed,
                     "Lists of whichever model the traffic's split gives a user",
                     takes=Recommend, gives=lists, statuses=[404, 409], example=asked),
            Endpoint("POST", model + "/similar", self.similar, "Items like an item",
                     takes=schemas.Similar, gives=alike, parameters=[NAME], statuses=[404, 409],
                     example={"item_id": "7", "k": 10}),
            Endpoint("POST", "/v1/feedback", self.feedback,
                     "Events, on disk before the answer; the next list of their user knows them",
                     takes=schemas.Events, gives=schemas.Received, example=[event]),
            Endpoint("GET", "/v1/feedback/export", self.export, "All events as Parquet",
                     access="admin", gives=PARQUET, parameters=[since]),
            Endpoint("GET", "/v1/models", self.models, "What is served", gives=schemas.Models),
            Endpoint("GET", model, self.card, "A model's card", gives=schemas.Card,
                     parameters=[NAME], statuses=[404]),
            Endpoint("GET", model + "/items/{item_id}", self.item, "What is known of an item",
                     gives=schemas.ItemRecord, parameters=[NAME, ITEM], statuses=[404]),
            Endpoint("POST", model + "/items", self.add_item,
                     "A new item, ranked for everyone from the next call on",
                     takes=schemas.NewItem, gives=schemas.Added, parameters=[NAME],
                     statuses=[404, 409]),
            Endpoint("POST", "/v1/admin/swap", self.swap,
                     "Serve a model from another artifact, without a failed request",
                     access="admin", takes=schemas.Swap, gives=schemas.Swapped,
                     statuses=[404, 409], example={"model": "shop", "artifact": "shop-2"}),
            Endpoint("GET", "/images/{name}/{item_id}", self.image, "An item's picture",
                     gives="image/*", parameters=[NAME, ITEM], statuses=[404]),
            Endpoint("GET", "/health", self.health, "Whether the process runs", access="open",
                     gives=schemas.Health),
            Endpoint("GET", "/ready", self.ready, "Whether to send requests here",
                     access="open", gives=schemas.Health),
            Endpoint("GET", "/metrics", self.metrics, "Counts and times, for Prometheus",
                     gives="text/plain"),
            Endpoint("GET", "/openapi.json", self.openapi, "This description, for programs",
                     access="open", gives=dict[str, Any]),
            Endpoint("GET", "/docs", self.docs, "This description, for people", access="open",
                     gives="text/html"),
        ]  # fmt: skip

    # ------------------------------------------------------------------ lists

    async def recommend(self, call: Call) -> Answer:
        """Lists of the model in the path."""
        served = self.service.models.get(call.params["name"])
        asked = read(schemas.RECOMMEND, call.body, "/v1/models/{name}/recommend")
        return await self._listed(lambda _: served, asked)

    async def routed(self, call: Call) -> Answer:
        """Lists of the models that the split gives."""
        asked = read(schemas.RECOMMEND, call.body, "/v1/recommend")
        return await self._listed(self.service.models.of_user, asked)

    async def _listed(self, choose: Callable[[str], Served], asked: Recommend) -> Answer:
        ways = (asked.user_id, asked.user_ids, asked.items)
        if sum(way is not UNSET for way in ways) != 1:
            given = [n for n in ("user_id", "user_ids", "items") if getattr(asked, n) is not UNSET]
            raise Failure(
                422, "exactly one of user_id, user_ids and items",
                " and ".join(given) or "none of them", "send one of them",
            )  # fmt: skip
        if not isinstance(asked.user_id, UnsetType):
            return await self._of_user(choose, str(asked.user_id), asked)
        if not isinstance(asked.user_ids, UnsetType):
            return await self._of_users(choose, [str(one) for one in asked.user_ids], asked)
        assert not isinstance(asked.items, UnsetType)
        items = [str(one) for one in asked.items]
        served = choose("\n".join(sorted(items)))
        asking.check_asked(served, asked)
        asking.need_fold_in(served)
        found = await self._in_thread(
            served.ranker.recommend_for_items, items, asked.k, **asking.rules_of(asked)
        )
        self.service.metrics.lists.labels(served.name, "items").inc()
        listed = asking.scored(found, 0, asked.fields)
        return answer(
            schemas.Answered(
                model=served.name, version=served.version, basis=found.basis[0], items=listed
            )
        )

    async def _of_user(
        self, choose: Callable[[str], Served], user: str, asked: Recommend
    ) -> Answer:
        served = choose(user)
        if not served.knows(user):
            trouble = asking.unknown_user(served, user)
            raise Failure(404, trouble.expected, trouble.got, trouble.fix)
        if asking.plain(asked):
            found, place = await self.service.batcher.ask(served, user, asked.k, asked.filter_seen)
        else:
            asking.check_asked(served, asked)
            place = 0
            served.settle((user,))
            found = await self._in_thread(
                served.ranker.recommend, [user], asked.k, **asking.rules_of(asked)
            )
            self.service.metrics.lists.labels(served.name, "user").inc()
        return answer(
            schemas.Answered(
                model=served.name,
                version=served.version,
                user_id=user,
                basis=found.basis[place],
                items=asking.scored(found, place, asked.fields),
            )
        )

    async def _of_users(
        self, choose: Callable[[str], Served], users: Sequence[str], asked: Recommend
    ) -> Answer:
        by_model: dict[Served, list[int]] = {}
        for place, user in enumerate(users):
            by_model.setdefault(choose(user), []).append(place)
        answers: list[schemas.OneUser | None] = [None] * len(users)
        for served, places in by_model.items():
            asking.check_asked(served, asked)
            known = [place for place in places if served.knows(users[place])]
            theirs = [users[place] for place in known]
            if known:
                found = await self._in_thread(
                    served.ranker.recommend, theirs, asked.k, **asking.rules_of(asked)
                )
                self.service.metrics.lists.labels(served.name, "users").inc(len(known))
                for at, place in enumerate(known):
                    answers[place] = schemas.OneUser(
                        user_id=users[place],
                        model=served.name,
                        version=served.version,
                        basis=found.basis[at],
                        items=asking.scored(found, at, asked.fields),
                    )
            for place in places:
                if answers[place] is None:
                    answers[place] = schemas.OneUser(
                        user_id=users[place],
                        model=served.name,
                        version=served.version,
                        items=[],
                        error=asking.unknown_user(served, users[place]),
                    )
        return answer(schemas.AnsweredMany(users=[one for one in answers if one is not None]))

    async def similar(self, call: Call) -> Answer:
        """Items like one item, or like each of several."""
        served = self.service.models.get(call.params["name"])
        asked = read(schemas.SIMILAR, call.body, "/v1/models/{name}/similar")
        single, several = asked.item_id, asked.item_ids
        if (single is UNSET) == (several is UNSET):
            got = "neither" if single is UNSET else "both"
            raise Failure(422, "exactly one of item_id and item_ids", got, "send one of them")
        items = [str(single)] if isinstance(several, UnsetType) else [str(o) for o in several]
        asking.check_fields(served, asked.fields)
        asking.need_vectors(served, "to say how alike items are")
        found = await self._in_thread(
            served.ranker.similar_items,
            items,
            asked.k,
            where=asking.where_of(asked.where),
            exclude=[str(one) for one in asked.exclude],
        )
        self.service.metrics.lists.labels(served.name, "similar").inc(len(items))
        if single is not UNSET:
            listed = asking.scored(found, 0, asked.fields)
            return answer(
                schemas.AnsweredSimilar(
                    model=served.name, version=served.version, item_id=items[0], items=listed
                )
            )
        lists = [
            schemas.OneItem(item, asking.scored(found, place, asked.fields))
            for place, item in enumerate(items)
        ]
        return answer(
            schemas.AnsweredSimilarMany(model=served.name, version=served.version, lists=lists)
        )

    async def _in_thread(self, ask: Callable[..., Ranked], *words: Any, **named: Any) -> Ranked:
        """Ask a ranker what may take long, while the event loop goes on."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.service.threads, lambda: ask(*words, **named))

    # ------------------------------------------------------------------ feedback

    async def feedback(self, call: Call) -> Answer:
        """Events."""
        events = read(schemas.EVENTS, call.body, "/v1/feedback")
        return answer(await self.service.record(events))

    async def export(self, call: Call) -> Answer:
        """All events as a Parquet file, written by another process."""
        asked = call.arguments({"since": _second})
        path, done = await export.in_process(self.service.settings.feedback, asked.get("since", 0))
        name = b'attachment; filename="feedback.parquet"'
        return Answer(200, path, PARQUET, ((b"content-disposition", name),), done)

    # ------------------------------------------------------------------ models and items

    async def models(self, call: Call) -> Answer:
        """What is served."""
        lines = []
        for served in self.service.models:
            artifact = served.ranker.artifact
            lines.append(
                schemas.ModelLine(
                    served.name,
                    served.version,
                    artifact.manifest.model,
                    artifact.n_users,
                    len(served.ranker.catalogue),
                    self.service.models.shares[served.name],
                )
            )
        return answer(schemas.Models(lines))

    async def card(self, call: Call) -> Answer:
        """A model's manifest, and what has been added since."""
        served = self.service.models.get(call.params["name"])
        manifest = msgspec.to_builtins(served.ranker.artifact.manifest)
        share = self.service.models.shares[served.name]
        added = self.service.new_items.count(served)
        return answer(schemas.Card(served.name, served.version, share, added, manifest))

    async def item(self, call: Call) -> Answer:
        """An item's metadata."""
        served = self.service.models.get(call.params["name"])
        item_id, catalogue = call.params["item_id"], served.ranker.catalogue
        row = int(catalogue.rows([item_id])[0])
        has = self._picture(served, row) is not None
        image = f"/images/{served.name}/{docs.quoted(item_id)}" if has else None
        fields = {name: asking.finite(value) for name, value in catalogue.record(row).items()}
        return answer(schemas.ItemRecord(item_id, fields, image))

    async def image(self, call: Call) -> Answer:
        """An item's picture. No part of the address is used as a path: the artifact's table says
        which file it is, and that must lie in the artifact's own folder of pictures.
        """
        served = self.service.models.get(call.params["name"])
        row = int(served.ranker.catalogue.rows([call.params["item_id"]])[0])
        path = self._picture(served, row)
        if path is None:
            raise Failure(
                404, "an item with a picture", f"{call.params['item_id']!r}, which has none",
                "ask for another item",
            )  # fmt: skip
        kept = ((b"cache-control", b"private, max-age=3600"),)
        return Answer(200, path, IMAGES[path.suffix.lower()], kept)

    def _picture(self, served: Served, row: int) -> Path | None:
        artifact = served.ranker.artifact
        path = artifact.image_path(row) if row < artifact.n_items else None
        return path if path is not None and path.suffix.lower() in IMAGES else None

    async def add_item(self, call: Call) -> Answer:
        """A new item."""
        served = self.service.models.get(call.params["name"])
        item = read(schemas.NEW_ITEM, call.body, "/v1/models/{name}/items")
        return answer(await self.service.add_item(served, item))

    async def swap(self, call: Call) -> Answer:
        """Another artifact for a model."""
        asked = read(schemas.SWAP, call.body, "/v1/admin/swap")
        folder = None if isinstance(asked.artifact, UnsetType) else asked.artifact
        return answer(await self.service.swap(asked.model, folder))

    # ------------------------------------------------------------------ the service itself

    async def health(self, call: Call) -> Answer:
        """Alive, even while it stops."""
        return answer(schemas.Health("stopping" if self.service.stopping else "ok"))

    async def ready(self, call: Call) -> Answer:
        """Wants requests."""
        if self.service.stopping:
            raise Failure(
                503, "a service that takes requests", "one that is stopping",
                "send them to another", {"retry-after": "5"},
            )  # fmt: skip
        return answer(schemas.Health("ok"))

    async def metrics(self, call: Call) -> Answer:
        """Counts and times."""
        return Answer(200, self.service.metrics.text(), CONTENT_TYPE)

    def document(self) -> dict[str, Any]:
        """The OpenAPI document of what is served now."""
        columns: dict[str, set[str]] = {}
        modalities: dict[str, int | None] = {}
        widths: set[int] = set()
        for served in self.service.models:
            ranker = served.ranker
            for name, kind in ranker.artifact.manifest.columns.items():
                columns.setdefault(name, set()).add(kind)
            widths.add(ranker.artifact.manifest.width)
            adapted = {} if ranker.adapter is None else ranker.adapter.widths
            for name, width in adapted.items():
                modalities[name] = width if modalities.get(name, width) == width else None
        known = openapi.Known(
            self.service.models.names(),
            {name: frozenset(kinds) for name, kinds in columns.items()},
            modalities,
            widths.pop() if len(widths) == 1 else None,
            self.service.keys is not None,
            self.service.settings.encoder is not None,
        )
        return openapi.document(self.table, known)

    async def openapi(self, call: Call) -> Answer:
        """The document."""
        return Answer(200, msgspec.json.encode(self.document()), JSON)

    async def docs(self, call: Call) -> Answer:
        """The document as a page that needs nothing from elsewhere."""
        return Answer(200, docs.page(self.document()).encode(), "text/html; charset=utf-8")


def _second(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > schemas.LATEST:
        raise ValueError(f"a second from 0 to {schemas.LATEST}")
    return int(text)
