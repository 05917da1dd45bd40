"""The types of the API: bodies are read by them, and the OpenAPI document is written from them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

MAX_K = 1000
MAX_USERS = 1000
MAX_IDS = 10_000
MAX_EVENTS = 1000
LATEST = 4_102_444_800
"""1 January 2100: a later time is most likely in milliseconds."""

# Ids hold no control characters; NUL in particular is not allowed in PostgreSQL. In Python `$` also
# matches before a line break at the end, which the look-ahead refuses.
_TEXT = r"^[^\x00-\x1f\x7f-\x9f]+$(?!\n)"
PLAIN = r"^[A-Za-z0-9_][A-Za-z0-9._-]*$(?!\n)"
TextId = Annotated[str, Meta(min_length=1, max_length=256, pattern=_TEXT)]
Id: TypeAlias = TextId | Annotated[int, Meta(ge=-(2**53), le=2**53)]
Ids = Annotated[list[Id], Meta(max_length=MAX_IDS)]
SomeIds = Annotated[list[Id], Meta(min_length=1, max_length=MAX_USERS)]
HowMany = Annotated[int, Meta(ge=1, le=MAX_K, description="Number of items.")]
Finite = Annotated[float, Meta(ge=-1e30, le=1e30)]
Basis = Literal["trained", "updated", "folded", "popular"]
_BASIS = (
    "What the list is based on: the trained vector, that vector updated by feedback, a vector made "
    "from the history alone, or popularity."
)
Kind = Literal["view", "click", "like", "cart", "buy", "dislike", "hide"]


class Range(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Values from min to max, both included; either may be omitted.

    Numbers for a column of numbers, texts such as ISO dates for any other.
    """

    min: Finite | str | UnsetType = UNSET
    max: Finite | str | UnsetType = UNSET


Condition: TypeAlias = str | list[str] | Finite | Range
Where: TypeAlias = dict[str, Condition]


class Boost(Struct, forbid_unknown_fields=True):
    """Raise the scores of some items, or lower them with a negative amount."""

    amount: Annotated[
        float,
        Meta(ge=-100, le=100, description="In standard deviations of the scores; 1 is strong."),
    ]
    where: Where | None = None
    items: Ids = []


class Recommend(Struct, forbid_unknown_fields=True, kw_only=True):
    """A request for lists. Exactly one of user_id, user_ids and items must be sent."""

    user_id: Annotated[Id, Meta(description="A user.")] | UnsetType = UNSET
    user_ids: Annotated[SomeIds, Meta(description="Several users.")] | UnsetType = UNSET
    items: (
        Annotated[
            list[Id],
            Meta(
                max_length=MAX_USERS,
                description="Items that a user liked who has no id; none: what is popular.",
            ),
        ]
        | UnsetType
    ) = UNSET
    on_unknown: Annotated[
        Literal["popular", "error"],
        Meta(
            description="What a user gets whom the model does not know: the most popular items, or "
            "an error (404 for one user, `error` in the list of one of several)."
        ),
    ] = "popular"
    k: HowMany = 10
    filter_seen: Annotated[bool, Meta(description="Leave out items that the user has seen.")] = True
    exclude: Annotated[Ids, Meta(description="Items to leave out.")] = []
    allow: Annotated[Ids, Meta(description="List only these items.")] | None = None
    where: Annotated[Where, Meta(description="Conditions on metadata.")] | None = None
    boost: Annotated[list[Boost], Meta(max_length=16)] = []
    at_most_per: Annotated[
        dict[str, Annotated[int, Meta(ge=1, le=MAX_K)]],
        Meta(description="Maximum number of items with one value of a column.", max_length=4),
    ] = {}
    diversity: Annotated[
        float, Meta(ge=0, le=1, description="0: the best scores; 1: the most different items.")
    ] = 0.0
    fields: Annotated[
        list[str], Meta(description="Columns of metadata to add to each item.", max_length=32)
    ] = []


class Similar(Struct, forbid_unknown_fields=True, kw_only=True):
    """A request for similar items. Exactly one of item_id and item_ids must be sent."""

    item_id: Annotated[Id, Meta(description="Id of an item.")] | UnsetType = UNSET
    item_ids: Annotated[SomeIds, Meta(description="Ids of several items.")] | UnsetType = UNSET
    k: HowMany = 10
    exclude: Ids = []
    where: Where | None = None
    fields: Annotated[list[str], Meta(max_length=32)] = []


class Scored(Struct, omit_defaults=True):
    """An item of a list."""

    item_id: str
    score: float
    fields: dict[str, str | float | None] | UnsetType = UNSET


class Answered(Struct, kw_only=True, omit_defaults=True):
    """One list, best first; shorter than k if no more items are left."""

    model: str
    version: Annotated[str, Meta(description="The artifact that the list was made from.")]
    user_id: str | UnsetType = UNSET
    basis: Annotated[Basis, Meta(description=_BASIS)]
    items: list[Scored]


class Trouble(Struct):
    """Why there is no list for a user."""

    expected: str
    got: str
    fix: str


class OneUser(Struct, kw_only=True, omit_defaults=True):
    """A user's list, or why there is none."""

    user_id: str
    model: str
    version: str
    basis: Annotated[Basis, Meta(description=_BASIS)] | UnsetType = UNSET
    items: list[Scored]
    error: Trouble | UnsetType = UNSET


class AnsweredMany(Struct, kw_only=True):
    """A list for each user, in the order of the request."""

    users: list[OneUser]


class AnsweredSimilar(Struct, kw_only=True):
    """Items similar to an item, most similar first; scores are cosines."""

    model: str
    version: str
    item_id: str
    items: list[Scored]


class OneItem(Struct):
    """Items similar to an item."""

    item_id: str
    items: list[Scored]


class AnsweredSimilarMany(Struct, kw_only=True):
    """A list for each item, in the order of the request."""

    model: str
    version: str
    lists: list[OneItem]


class Event(Struct, forbid_unknown_fields=True):
    """An interaction of a user with an item."""

    event_id: Annotated[
        str,
        Meta(
            min_length=1, max_length=128, pattern=_TEXT,
            description="Unique, yours: an event counts once however often it is sent.",
        ),
    ]  # fmt: skip
    user_id: Id
    item_id: Id
    kind: Kind
    time: (
        Annotated[int, Meta(ge=0, le=LATEST, description="Unix time in seconds; now if omitted.")]
        | UnsetType
    ) = UNSET


Events = Annotated[list[Event], Meta(min_length=1, max_length=MAX_EVENTS)]


class Received(Struct):
    """The result of one call; all its events are on disk."""

    received: int
    new: int
    duplicates: int
    unknown_items: Annotated[int, Meta(description="Stored, but about items of no served model.")]


Value = Annotated[float, Meta(ge=-1e6, le=1e6)]
Vector = Annotated[list[Value], Meta(min_length=1, max_length=8192)]


class NewItem(Struct, forbid_unknown_fields=True, kw_only=True):
    """An item that is not in the artifact: its vector, or its features by modality, or its text and
    picture if the service runs an encoder.
    """

    item_id: TextId
    vector: Annotated[Vector, Meta(description="In the model's item space.")] | UnsetType = UNSET
    features: (
        Annotated[dict[str, Vector], Meta(min_length=1, description="By modality.")] | UnsetType
    ) = UNSET
    text: Annotated[str, Meta(min_length=1, max_length=20_000)] | UnsetType = UNSET
    image: (
        Annotated[str, Meta(min_length=1, description="A PNG, JPEG or WebP in base64.")] | UnsetType
    ) = UNSET
    fields: Annotated[
        dict[str, str | Finite | None], Meta(max_length=64, description="Metadata by column.")
    ] = {}


class Added(Struct):
    """A new item that is ranked for all users from now on."""

    model: str
    item_id: str
    n_items: Annotated[int, Meta(description="Number of ranked items, with this one.")]
    modalities: Annotated[list[str], Meta(description="What its vector was made from.")]


class Swap(Struct, forbid_unknown_fields=True):
    """A request to serve a model from another artifact."""

    model: TextId
    artifact: (
        Annotated[
            str,
            Meta(
                min_length=1, max_length=128, pattern=PLAIN,
                description="A folder beside the present one; if omitted, that one is read again.",
            ),
        ]
        | UnsetType
    ) = UNSET  # fmt: skip


class Swapped(Struct):
    """The artifact that is served now."""

    model: str
    version: str
    previous: str
    seconds: float


class ModelLine(Struct):
    """Summary of a served model."""

    name: str
    version: str
    model: str
    n_users: int
    n_items: int
    share: Annotated[float, Meta(description="Share of the traffic of /v1/recommend.")]


class Models(Struct):
    """All served models; the first is the default."""

    models: list[ModelLine]


class Card(Struct):
    """Description of a served model."""

    name: str
    version: str
    share: float
    new_items: int
    manifest: dict[str, Any]


class ItemRecord(Struct):
    """Metadata of an item."""

    item_id: str
    fields: dict[str, str | float | None]
    image: Annotated[str, Meta(description="Path of its picture on this server.")] | None


class Health(Struct):
    """The state of the service."""

    status: Literal["ok", "stopping"]


class Facts(Struct):
    """What was expected, what was received instead, and how to fix it."""

    status: int
    expected: str
    got: str
    fix: str
    request_id: str


class Error(Struct):
    """The body of every answer with an error."""

    error: Facts


RECOMMEND = msgspec.json.Decoder(Recommend)
SIMILAR = msgspec.json.Decoder(Similar)
EVENTS = msgspec.json.Decoder(Events)
NEW_ITEM = msgspec.json.Decoder(NewItem)
SWAP = msgspec.json.Decoder(Swap)
