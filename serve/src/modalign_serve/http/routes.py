"""The endpoints: what each takes, asks of the models, and answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, UnsetType

from modalign_serve.errors import Failure, TooSlow, unavailable
from modalign_serve.http import docs, openapi
from modalign_serve.http.http import JSON, Answer, Call, Endpoint, Parameter, Table, answer
from modalign_serve.http.reading import read
from modalign_serve.ranker.people import Person
from modalign_serve.ranker.ranker import Ranked
from modalign_serve.service import requests, schemas
from modalign_serve.service.counters import CONTENT_TYPE
from modalign_serve.service.schemas import Recommend, Similar
from modalign_serve.service.served import Served
from modalign_serve.service.service import Service
from modalign_serve.stores import export

NAME = Parameter("name", {"type": "string"}, description="Name of a served model.")
ITEM = Parameter("item_id", {"type": "string", "minLength": 1}, description="Id of an item.")
PARQUET = "application/vnd.apache.parquet"
T = TypeVar("T")


class Routes:
    """The endpoints of one service.

    Args:
        service: that they ask.
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        self.table = Table(self._endpoints())

    def _endpoints(self) -> list[Endpoint]:
        asked = {"user_id": "42", "k": 10}
        event = {"event_id": "e-1", "user_id": "42", "item_id": "7", "kind": "click"}
        since = Parameter("since", {"type": "integer", "minimum": 0, "maximum": schemas.LATEST},
                          "query", "Only events received at this Unix time or later.")  # fmt: skip
        lists = (schemas.Answered, schemas.AnsweredMany)
        alike = (schemas.AnsweredSimilar, schemas.AnsweredSimilarMany)
        model = "/v1/models/{name}"
        return [
            Endpoint("POST", model + "/recommend", self.recommend, "Lists from one model",
                     takes=Recommend, gives=lists, parameters=[NAME], statuses=[404, 409],
                     example=asked),
            Endpoint("POST", "/v1/recommend", self.routed,
                     "Lists from the model that the split of the traffic assigns to a user",
                     takes=Recommend, gives=lists, statuses=[404, 409], example=asked),
            Endpoint("POST", model + "/similar", self.similar, "Similar items",
                     takes=schemas.Similar, gives=alike, parameters=[NAME], statuses=[404, 409],
                     example={"item_id": "7", "k": 10}),
            Endpoint("POST", "/v1/feedback", self.feedback,
                     "Store events, before the answer; they count in the user's next list",
                     takes=schemas.Events, gives=schemas.Received, statuses=[409],
                     example=[event]),
            Endpoint("GET", "/v1/feedback/export", self.export, "All events as a Parquet file",
                     access="admin", gives=PARQUET, parameters=[since]),
            Endpoint("GET", "/v1/models", self.models, "The served models", gives=schemas.Models),
            Endpoint("GET", model, self.card, "Description of a model", gives=schemas.Card,
                     parameters=[NAME], statuses=[404]),
            Endpoint("GET", model + "/items/{item_id}", self.item, "Metadata of an item",
                     gives=schemas.ItemRecord, parameters=[NAME, ITEM], statuses=[404]),
            Endpoint("POST", model + "/items", self.add_item,
                     "Add an item, ranked for all users from the next call on",
                     takes=schemas.NewItem, gives=schemas.Added, parameters=[NAME],
                     statuses=[404, 409]),
            Endpoint("POST", "/v1/admin/swap", self.swap,
                     "Serve a model from another artifact, without a failed request",
                     access="admin", takes=schemas.Swap, gives=schemas.Swapped,
                     statuses=[404, 409], example={"model": "shop", "artifact": "shop-2"}),
            Endpoint("GET", "/images/{name}/{item_id}", self.image, "Picture of an item",
                     gives="image/*", parameters=[NAME, ITEM], statuses=[404]),
            Endpoint("GET", "/health", self.health, "Whether the process runs", access="open",
                     gives=schemas.Health),
            Endpoint("GET", "/ready", self.ready, "Whether the service takes requests",
                     access="open", gives=schemas.Health),
            Endpoint("GET", "/metrics", self.metrics, "Metrics for Prometheus",
                     gives="text/plain"),
            Endpoint("GET", "/openapi.json", self.openapi, "The OpenAPI document of this API",
                     access="open", gives=dict[str, Any]),
            Endpoint("GET", "/docs", self.docs, "This documentation", access="open",
                     gives="text/html"),
        ]  # fmt: skip

    async def recommend(self, call: Call) -> Answer:
        """Lists from the model in the path."""
        served = self.service.models.get(call.params["name"])
        asked = read(schemas.RECOMMEND, call.body, "/v1/models/{name}/recommend")
        return await self._listed(lambda _: served, asked)

    async def routed(self, call: Call) -> Answer:
        """Lists from the model that the split assigns to each user."""
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
            users = [str(one) for one in asked.user_ids]
            with self.service.work.held(requests.entries(len(users), asked.k)):
                return await self._of_users(choose, users, asked)
        assert not isinstance(asked.items, UnsetType)
        items = [str(one) for one in asked.items]
        served = choose("\n".join(sorted(items)))
        requests.check_asked(served, asked)
        if items:
            requests.need_fold_in(served)
        rules = requests.rules_of(asked)
        found = await self._in_thread(served.ranker.recommend_for_items, items, asked.k, rules)
        self.service.metrics.lists.labels(served.name, "items").inc()
        listed = await self._in_thread(requests.scored, found, 0, asked.fields)
        return answer(
            schemas.Answered(
                model=served.name, version=served.version, basis=found.basis[0], items=listed
            )
        )

    async def _of_user(
        self, choose: Callable[[str], Served], user: str, asked: Recommend
    ) -> Answer:
        served = choose(user)
        person = requests.person_of(served, user, asked)
        if person is None:
            trouble = requests.unknown_user(served, user)
            raise Failure(404, trouble.expected, trouble.got, trouble.fix)
        if requests.is_plain(asked):
            batcher = self.service.batcher
            found, place = await batcher.ask(served, person, asked.k, asked.filter_seen)
        else:
            requests.check_asked(served, asked)
            found, place = await self._recommended(served, [person], asked), 0
            self.service.metrics.lists.labels(served.name, "user").inc()
        if asked.fields:
            listed = await self._in_thread(requests.scored, found, place, asked.fields)
        else:
            listed = requests.scored(found, place, asked.fields)
        return answer(
            schemas.Answered(
                model=served.name,
                version=served.version,
                user_id=user,
                basis=found.basis[place],
                items=listed,
            )
        )

    async def _of_users(
        self, choose: Callable[[str], Served], users: Sequence[str], asked: Recommend
    ) -> Answer:
        by_model: dict[Served, list[int]] = {}
        for place, user in enumerate(users):
            by_model.setdefault(choose(user), []).append(place)
        answers: list[schemas.OneUser | None] = [None] * len(users)
        room = requests.Room()
        for served, places in by_model.items():
            requests.check_asked(served, asked)
            known = {
                place: person
                for place in places
                if (person := requests.person_of(served, users[place], asked)) is not None
            }
            if known:
                found = await self._recommended(served, list(known.values()), asked)
                self.service.metrics.lists.labels(served.name, "users").inc(len(known))
                lists = await self._in_thread(_all_scored, found, asked.fields, room)
                for at, place in enumerate(known):
                    answers[place] = schemas.OneUser(
                        user_id=users[place],
                        model=served.name,
                        version=served.version,
                        basis=found.basis[at],
                        items=lists[at],
                    )
            for place in places:
                if answers[place] is None:
                    answers[place] = schemas.OneUser(
                        user_id=users[place],
                        model=served.name,
                        version=served.version,
                        items=[],
                        error=requests.unknown_user(served, users[place]),
                    )
        found_all = schemas.AnsweredMany(users=[one for one in answers if one is not None])
        return await self._in_thread(answer, found_all)

    async def similar(self, call: Call) -> Answer:
        """Items similar to one item, or to each of several.

        Raises:
            Failure: the body names neither or both.
        """
        served = self.service.models.get(call.params["name"])
        asked = read(schemas.SIMILAR, call.body, "/v1/models/{name}/similar")
        single, several = asked.item_id, asked.item_ids
        if (single is UNSET) == (several is UNSET):
            got = "neither" if single is UNSET else "both"
            raise Failure(422, "exactly one of item_id and item_ids", got, "send one of them")
        items = [str(single)] if isinstance(several, UnsetType) else [str(o) for o in several]
        requests.check_fields(served, asked.fields)
        requests.need_vectors(served, "to compare items")
        with self.service.work.held(requests.entries(len(items), asked.k)):
            return await self._similar(served, items, asked)

    async def _similar(self, served: Served, items: Sequence[str], asked: Similar) -> Answer:
        rules = requests.rules_of_similar(asked)
        found = await self._in_thread(served.ranker.similar_items, items, asked.k, rules)
        self.service.metrics.lists.labels(served.name, "similar").inc(len(items))
        scored = await self._in_thread(_all_scored, found, asked.fields, requests.Room())
        if asked.item_id is not UNSET:
            return answer(
                schemas.AnsweredSimilar(
                    model=served.name, version=served.version, item_id=items[0], items=scored[0]
                )
            )
        lists = [schemas.OneItem(item, one) for item, one in zip(items, scored, strict=True)]
        found_all = schemas.AnsweredSimilarMany(
            model=served.name, version=served.version, lists=lists
        )
        return await self._in_thread(answer, found_all)

    async def _recommended(
        self, served: Served, people: Sequence[Person], asked: Recommend
    ) -> Ranked:
        rules = requests.rules_of(asked)
        return await self._in_thread(served.ranker.recommend_people, people, asked.k, rules)

    async def _in_thread(self, ask: Callable[..., T], *words: Any) -> T:
        """Rank, or make a long answer, in another thread, as it may take long.

        Raises:
            Failure: 503 if it takes too long.
        """
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self.service.threads, ask, *words)
        except TooSlow as error:
            raise unavailable(
                f"a request that takes over {requests.RANK_SECONDS:g} seconds",
                "ask for fewer lists at a time, shorter ones, or less diversity",
            ) from error

    async def feedback(self, call: Call) -> Answer:
        """Events."""
        events = read(schemas.EVENTS, call.body, "/v1/feedback")
        return answer(await self.service.record(events))

    async def export(self, call: Call) -> Answer:
        """All events as a Parquet file, which another process writes."""
        asked = call.arguments({"since": _second})
        try:
            path, done = await export.in_process(
                self.service.settings.feedback, asked.get("since", 0)
            )
        except Failure as failure:
            if failure.__cause__ is not None:
                self.service.log.error("export failed", reason=str(failure.__cause__))
            raise
        name = b'attachment; filename="feedback.parquet"'
        return Answer(200, path, PARQUET, ((b"content-disposition", name),), done)

    async def models(self, call: Call) -> Answer:
        """The served models."""
        lines = []
        for served in self.service.models:
            manifest = served.ranker.manifest
            lines.append(
                schemas.ModelLine(
                    served.name,
                    served.version,
                    manifest.model,
                    manifest.n_users,
                    len(served.ranker.catalogue),
                    self.service.models.shares[served.name],
                )
            )
        return answer(schemas.Models(lines))

    async def card(self, call: Call) -> Answer:
        """A model's manifest, and the number of items added since."""
        served = self.service.models.get(call.params["name"])
        manifest = msgspec.to_builtins(served.ranker.manifest)
        share = self.service.models.shares[served.name]
        added = served.ranker.catalogue.n_added
        return answer(schemas.Card(served.name, served.version, share, added, manifest))

    async def item(self, call: Call) -> Answer:
        """Metadata of an item."""
        served = self.service.models.get(call.params["name"])
        item_id, catalogue = call.params["item_id"], served.ranker.catalogue
        row = int(catalogue.rows([item_id])[0])
        has = served.picture_name(row) is not None
        image = f"/images/{served.name}/{docs.quoted(item_id)}" if has else None
        fields = {name: requests.finite(value) for name, value in catalogue.record(row).items()}
        return answer(schemas.ItemRecord(item_id, fields, image))

    async def image(self, call: Call) -> Answer:
        """Picture of an item. No part of the address is used as a path: a column of the artifact
        names the picture.

        Raises:
            Failure: the item has no picture.
        """
        served = self.service.models.get(call.params["name"])
        row = int(served.ranker.catalogue.rows([call.params["item_id"]])[0])
        found = await asyncio.to_thread(served.picture, row)
        if found is None:
            raise Failure(
                404, "an item with a picture", f"{call.params['item_id']!r}, which has none",
                "ask for another item",
            )  # fmt: skip
        kept = ((b"cache-control", b"private, max-age=3600"),)
        return Answer(200, *found, kept)

    async def add_item(self, call: Call) -> Answer:
        """Add an item."""
        served = self.service.models.get(call.params["name"])
        item = read(schemas.NEW_ITEM, call.body, "/v1/models/{name}/items")
        return answer(await self.service.add_item(served, item))

    async def swap(self, call: Call) -> Answer:
        """Serve another artifact."""
        asked = read(schemas.SWAP, call.body, "/v1/admin/swap")
        folder = None if isinstance(asked.artifact, UnsetType) else asked.artifact
        return answer(await self.service.swap(asked.model, folder))

    async def health(self, call: Call) -> Answer:
        """Whether the process runs, also while it stops."""
        return answer(schemas.Health("stopping" if self.service.stopping else "ok"))

    async def ready(self, call: Call) -> Answer:
        """Whether the service takes requests.

        Raises:
            Failure: it is stopping.
        """
        if self.service.stopping:
            raise Failure(
                503, "a service that takes requests", "one that is stopping",
                "send requests to another server", {"retry-after": "5"},
            )  # fmt: skip
        return answer(schemas.Health("ok"))

    async def metrics(self, call: Call) -> Answer:
        """Metrics for Prometheus."""
        return Answer(200, self.service.metrics.text(), CONTENT_TYPE)

    def document(self) -> dict[str, Any]:
        """The OpenAPI document, with the models that are served now."""
        columns: dict[str, set[str]] = {}
        modalities: dict[str, int | None] = {}
        widths: set[int] = set()
        for served in self.service.models:
            ranker = served.ranker
            for name, kind in ranker.manifest.columns.items():
                columns.setdefault(name, set()).add(kind)
            widths.add(ranker.manifest.width)
            adapted = {} if ranker.adapter is None else ranker.adapter.widths
            for name, width in adapted.items():
                modalities[name] = width if modalities.get(name, width) == width else None
        known = openapi.ServedFacts(
            self.service.models.names(),
            {name: frozenset(kinds) for name, kinds in columns.items()},
            modalities,
            widths.pop() if len(widths) == 1 else None,
            self.service.keys is not None,
            self.service.settings.encoder is not None,
        )
        return openapi.document(self.table, known)

    async def openapi(self, call: Call) -> Answer:
        """The OpenAPI document."""
        return Answer(200, msgspec.json.encode(self.document()), JSON)

    async def docs(self, call: Call) -> Answer:
        """The document as a page without external resources."""
        return Answer(200, docs.page(self.document()).encode(), "text/html; charset=utf-8")


def _all_scored(
    found: Ranked, fields: Sequence[str], room: requests.Room
) -> list[list[schemas.Scored]]:
    return [requests.scored(found, place, fields, room) for place in range(len(found))]


def _second(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > schemas.LATEST:
        raise ValueError(f"a Unix time from 0 to {schemas.LATEST}")
    return int(text)
