"""What the API takes and gives, as types: bodies are read by them, OpenAPI is written from them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

MOST_K = 1000
MOST_USERS = 1000
MOST_IDS = 10_000
MOST_EVENTS = 1000
LATEST = 4_102_444_800
"""1 January 2100: a time beyond it is most likely in milliseconds."""

# Control characters have no place in an id; NUL in particular no PostgreSQL text can hold. In
# Python `$` also stands before a line break at the end, which the look-ahead refuses.
_TEXT = r"^[^\x00-\x1f\x7f-\x9f]+$(?!\n)"
PLAIN = r"^[A-Za-z0-9_][A-Za-z0-9._-]*$(?!\n)"
TextId = Annotated[str, Meta(min_length=1, max_length=256, pattern=_TEXT)]
Id: TypeAlias = TextId | Annotated[int, Meta(ge=-(2**53), le=2**53)]
Ids = Annotated[list[Id], Meta(max_length=MOST_IDS)]
SomeIds = Annotated[list[Id], Meta(min_length=1, max_length=MOST_USERS)]
HowMany = Annotated[int, Meta(ge=1, le=MOST_K, description="How many items.")]
Finite = Annotated[float, Meta(ge=-1e30, le=1e30)]
Basis = Literal["trained", "updated", "folded", "popular"]
_BASIS = (
    "What the list rests on: the trained vector, that vector moved by feedback, a vector made of "
    "the history alone, or popularity."
)
Kind = Literal["view", "click", "like", "cart", "buy", "dislike", "hide"]


class Range(Struct, forbid_unknown_fields=True, omit_defaults=True):
    """Numbers from min to max, both included; either may be left out."""

    min: Finite | UnsetType = UNSET
    max: Finite | UnsetType = UNSET


Condition: TypeAlias = str | list[str] | Finite | Range
Where: TypeAlias = dict[str, Condition]


class Boost(Struct, forbid_unknown_fields=True):
    """Lift some items, or sink them with an amount below zero."""

    amount: Annotated[
        float, Meta(ge=-100, le=100, description="In deviations of the user's scores; 1 is strong.")
    ]
    where: Where | None = None
    items: Ids = []


class Recommend(Struct, forbid_unknown_fields=True, kw_only=True):
    """For whom, and what is asked of the list. Exactly one of user_id, user_ids and items."""

    user_id: Annotated[Id, Meta(description="A user by id.")] | UnsetType = UNSET
    user_ids: Annotated[SomeIds, Meta(description="Several users.")] | UnsetType = UNSET
    items: Annotated[SomeIds, Meta(description="What somebody unknown has liked.")] | UnsetType = (
        UNSET
    )
    k: HowMany = 10
    filter_seen: Annotated[bool, Meta(description="Leave out what the user has seen.")] = True
    exclude: Annotated[Ids, Meta(description="Items to leave out.")] = []
    allow: Annotated[Ids, Meta(description="Choose from these alone.")] | None = None
    where: Annotated[Where, Meta(description="Conditions on metadata.")] | None = None
    boost: Annotated[list[Boost], Meta(max_length=16)] = []
    at_most_per: Annotated[
        dict[str, Annotated[int, Meta(ge=1, le=MOST_K)]],
        Meta(description="At most n items with one value of a column.", max_length=4),
    ] = {}
    diversity: Annotated[
        float, Meta(ge=0, le=1, description="0: the best; 1: as unlike each other as can be.")
    ] = 0.0
    fields: Annotated[
        list[str], Meta(description="Columns of metadata to send along.", max_length=32)
    ] = []


class Similar(Struct, forbid_unknown_fields=True, kw_only=True):
    """Items like one item, or a list for each of several. Exactly one of item_id and item_ids."""

    item_id: Annotated[Id, Meta(description="An item.")] | UnsetType = UNSET
    item_ids: Annotated[SomeIds, Meta(description="Several items.")] | UnsetType = UNSET
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
    """One list, best first; shorter than k where no more items are left."""

    model: str
    version: Annotated[str, Meta(description="Which artifact the list was made from.")]
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
    """A list for each user, in the order in which they were asked for."""

    users: list[OneUser]


class AnsweredSimilar(Struct, kw_only=True):
    """Items like an item, the most alike first; scores are cosines."""

    model: str
    version: str
    item_id: str
    items: list[Scored]


class OneItem(Struct):
    """Items like an item."""

    item_id: str
    items: list[Scored]


class AnsweredSimilarMany(Struct, kw_only=True):
    """A list for each item, in the order in which they were asked for."""

    model: str
    version: str
    lists: list[OneItem]


class Event(Struct, forbid_unknown_fields=True):
    """Something that a user did with an item."""

    event_id: Annotated[
        str,
        Meta(
            min_length=1, max_length=128, pattern=_TEXT,
            description="Yours, and unique: an event counts once however often it is sent.",
        ),
    ]  # fmt: skip
    user_id: Id
    item_id: Id
    kind: Kind
    time: (
        Annotated[int, Meta(ge=0, le=LATEST, description="Seconds since 1970; now if left out.")]
        | UnsetType
    ) = UNSET


Events = Annotated[list[Event], Meta(min_length=1, max_length=MOST_EVENTS)]


class Received(Struct):
    """What became of the events of one call; all are on disk."""

    received: int
    new: int
    duplicates: int
    unknown_items: Annotated[int, Meta(description="Kept, but no model served here knows them.")]


Value = Annotated[float, Meta(ge=-1e6, le=1e6)]
Vector = Annotated[list[Value], Meta(min_length=1, max_length=8192)]


class NewItem(Struct, forbid_unknown_fields=True, kw_only=True):
    """An item that came after the artifact: its vector, or its features by modality, or the
    text and picture to make features of where the service runs an encoder.
    """

    item_id: TextId
    vector: Annotated[Vector, Meta(description="In the model's item space.")] | UnsetType = UNSET
    features: (
        Annotated[dict[str, Vector], Meta(min_length=1, description="By modality.")] | UnsetType
    ) = UNSET
    text: Annotated[str, Meta(min_length=1, max_length=20_000)] | UnsetType = UNSET
    image: (
        Annotated[str, Meta(min_length=1, description="A PNG or JPEG, in base64.")] | UnsetType
    ) = UNSET
    fields: Annotated[
        dict[str, str | Finite | None], Meta(max_length=64, description="Its metadata.")
    ] = {}


class Added(Struct):
    """A new item that is ranked for everyone from now on."""

    model: str
    item_id: str
    n_items: Annotated[int, Meta(description="Items in the ranking, this one included.")]
    modalities: Annotated[list[str], Meta(description="What its vector was made of.")]


class Swap(Struct, forbid_unknown_fields=True):
    """Serve a model from another artifact from now on."""

    model: TextId
    artifact: (
        Annotated[
            str,
            Meta(
                min_length=1, max_length=128, pattern=PLAIN,
                description="Name of a folder beside the present one; the same folder, read "
                "again, if left out.",
            ),
        ]
        | UnsetType
    ) = UNSET  # fmt: skip


class Swapped(Struct):
    """What is served now."""

    model: str
    version: str
    previous: str
    seconds: float


class ModelLine(Struct):
    """A served model in short."""

    name: str
    version: str
    model: str
    n_users: int
    n_items: int
    share: Annotated[float, Meta(description="Of the traffic of /v1/recommend.")]


class Models(Struct):
    """All served models; the first is the default."""

    models: list[ModelLine]


class Card(Struct):
    """A served model in full."""

    name: str
    version: str
    share: float
    new_items: int
    manifest: dict[str, Any]


class ItemRecord(Struct):
    """What is known of an item."""

    item_id: str
    fields: dict[str, str | float | None]
    image: Annotated[str, Meta(description="Where its picture is, from here.")] | None


class Health(Struct):
    """Whether the service runs, and whether it should be sent requests."""

    status: Literal["ok", "stopping"]


class Facts(Struct):
    """What was expected, what came, and how to mend it."""

    status: int
    expected: str
    got: str
    fix: str
    request_id: str


class Error(Struct):
    """The JSON of every answer that is not what was asked for."""

    error: Facts


RECOMMEND = msgspec.json.Decoder(Recommend)
SIMILAR = msgspec.json.Decoder(Similar)
EVENTS = msgspec.json.Decoder(Events)
NEW_ITEM = msgspec.json.Decoder(NewItem)
SWAP = msgspec.json.Decoder(Swap)
